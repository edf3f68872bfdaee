package inspect

// maskText returns what stands in place of text that rule matched.
func maskText(rule string) string { return "[REDACTED:" + rule + "]" }
