"""What a run is and what an institution allows: frozen tables read from TOML."""
