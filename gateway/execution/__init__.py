"""Lanes run batches: tickets in, outputs out; a lane that is lost comes back."""
