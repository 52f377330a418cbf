"""An exchange on loopback: market, tape, venue servers, faults, truth. Imports no parser and no producer."""
