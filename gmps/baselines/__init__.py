"""The methods that GMPS is compared with."""
