"""The serving half: one endpoint in front of every variant. Start reading at `service.py`."""
