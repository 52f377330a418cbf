"""An exchange on loopback: market, tape, venue servers, faults, truth. Imports no parser and no producer.

`market` and `assets` make facts and know neither clock nor file; `truth` writes them down; `coinbase_*` and
`coingecko_*` tell them in the venues' own words; `faults` and `bad_messages` spoil what is told, never what is true.
`service` runs it all on the clock, `capture` on a virtual one. Knobs: `configuration`, MARKETFLOW_SIMULATOR_*.
"""
