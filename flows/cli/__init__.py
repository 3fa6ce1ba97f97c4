"""The command line, `tutelage`. No flow imports it."""
