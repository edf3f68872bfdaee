//go:build !purego

package bytemask

// setFast switches the assembly on or off, and returns what it was.
func setFast(on bool) bool {
	old := fast
	fast = on
	return old
}
