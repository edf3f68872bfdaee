package sshgate

import (
	"bytes"
	"io"
	"net"
	"time"
)

const (
	versionWait = time.Second // clients speak at once; one that waits for our word gets it then
	maxVersion  = 255         // RFC 4253, 4.2
)

// An overheard connection gives back what was read of it.
type overheard struct {
	net.Conn

	r io.Reader
}

func (o overheard) Read(p []byte) (int, error) { return o.r.Read(p) }

// overhear returns what a client calls itself, and the connection with that
// still to be read. It is a claim, and only chooses between sound ciphers. The
// connection's deadline is grace from now afterwards.
func overhear(nc net.Conn, grace time.Duration) (net.Conn, string) {
	end := time.Now().Add(grace)
	_ = nc.SetReadDeadline(time.Now().Add(min(versionWait, grace)))
	heard := make([]byte, 0, maxVersion)
	for len(heard) < maxVersion && bytes.IndexByte(heard, '\n') < 0 {
		n, err := nc.Read(heard[len(heard):maxVersion])
		heard = heard[:len(heard)+n]
		if err != nil {
			break // the handshake meets it again
		}
	}
	_ = nc.SetReadDeadline(end)
	line, _, _ := bytes.Cut(heard, []byte("\n"))
	return overheard{nc, io.MultiReader(bytes.NewReader(heard), nc)}, string(bytes.TrimSpace(line))
}
