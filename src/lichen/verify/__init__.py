"""Why a result is believed."""
