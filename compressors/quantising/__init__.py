"""Narrower numbers: calibration, rounding, and OpenVINO's own."""
