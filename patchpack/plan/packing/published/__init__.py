"""Packers and the linear program as they were published. They need no more than the extra ``solver``."""
