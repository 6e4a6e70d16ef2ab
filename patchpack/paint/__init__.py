"""PAINTS. Told what to do by a plan; decides nothing, draws only which patches survive."""
