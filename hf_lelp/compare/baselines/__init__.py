"""Methods and controls that LELP is compared with."""
