"""The rules of evalmake; the scripts only parse arguments and call them."""
