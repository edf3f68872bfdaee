//go:build !amd64

package main

import "syscall"

// int80 has no meaning here: there is no 32-bit door of that sort. It ends like
// a program that was killed at it.
func int80() { syscall.Kill(syscall.Getpid(), syscall.SIGSYS) }
