"""Every feature and target, in the order of their groups: what the contract, the docs, the page and the tests go by."""

from __future__ import annotations

# each module enters its functions in the register
from marketflow.features.trades import flow, integrity, price, quotes, returns, targets, tempo, volume
from marketflow.features.trades.feature import GROUPS, REGISTER, Feature

MODULES = (price, returns, volume, flow, tempo, quotes, integrity, targets)
CATALOGUE: dict[str, Feature] = {name: one for group in GROUPS for name, one in REGISTER.items() if one.group == group}
FEATURES = tuple(one for one in CATALOGUE.values() if not one.reads_future)
TARGETS = tuple(one for one in CATALOGUE.values() if one.reads_future)
