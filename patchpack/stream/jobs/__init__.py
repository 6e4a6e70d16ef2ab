"""Jobs over many shards on several processes or machines."""
