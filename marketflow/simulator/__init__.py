"""An exchange on loopback: market, tape, venue servers, faults, truth. Imports no parser and no producer.

`market` and `assets` make facts and know neither clock nor file; `truth` writes them down and `minutes` folds them into
candles; the modules named after a venue tell them in its own words; `feed_server` carries what `feeds` puts together;
`faults`, `feed_faults`, `bad_*`, `http_faults` and `page_faults` spoil what is told, never what is true. A price whose
only time is its page's is true once `page_facts` wrote it.
`service` runs it all on the clock, `capture` on a virtual one. Knobs: `configuration`, MARKETFLOW_SIMULATOR_*.
"""
