package gateway

// WantedPath is where a hand-off leads whose cookie says path.
func WantedPath(path string) string { return cleanPath(path) }
