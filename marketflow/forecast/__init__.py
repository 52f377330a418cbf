"""A baseline forecast of trade features' targets, and what its score is worth: LightGBM beside naive guesses.

What is here reads rows of gold.trade_features, splits them, trains, scores and stores. Nothing here trades, serves a
prediction or computes a feature; clients of stores are passed in.
"""
