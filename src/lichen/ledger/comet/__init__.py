"""The CometBFT engine: the same state machine, ordered by operators who distrust each other.

CometBFT (https://docs.cometbft.com) agrees on blocks; `app` applies them, spoken to over ABCI 2.0.
"""
