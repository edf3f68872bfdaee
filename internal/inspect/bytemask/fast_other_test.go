//go:build !amd64 || purego

package bytemask

func setFast(bool) bool { return false }
