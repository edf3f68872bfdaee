package app

import "github.com/baileyhq/bailey"

// sshDoor says where clients find the SSH door, and by which keys they
// recognise it; the zero value without one.
func (a *App) sshDoor() bailey.SSHDoor { return a.sshAt }
