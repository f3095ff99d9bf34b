"""What the site makes of the code: pages of modules, and tables of settings and commands."""
