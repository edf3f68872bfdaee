//go:build !amd64

package bytemask

func setFast(bool) bool { return false }
