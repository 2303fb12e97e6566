"""What shows each rule, and the mutants that judge it."""
