"""The rules of evalmake; the scripts only parse arguments and call them."""

import gc

# A step makes its objects, mostly by importing, and ends. Looking for garbage as often as by default would take a tenth of its time.
gc.set_threshold(100_000)
