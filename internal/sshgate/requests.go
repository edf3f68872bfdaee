package sshgate

import (
	"golang.org/x/crypto/ssh"

	"github.com/baileyhq/bailey/internal/sshgate/hostkey"
)

// requests answers what concerns the whole connection, in order.
func (c *conn) requests(in <-chan *ssh.Request) {
	for req := range in {
		ok, payload := false, []byte(nil)
		switch req.Type {
		case "tcpip-forward":
			ok, payload = c.listenTCP(req.Payload)
		case "cancel-tcpip-forward":
			ok = c.cancelTCP(req.Payload)
		case "streamlocal-forward@openssh.com":
			ok = c.listenSocket(req.Payload)
		case "cancel-streamlocal-forward@openssh.com":
			ok = c.cancelSocket(req.Payload)
		case "no-more-sessions@openssh.com":
			ok = true
			c.mu.Lock()
			c.full = true
			c.mu.Unlock()
		case "hostkeys-prove-00@openssh.com":
			ok, payload = hostkey.Prove(c.hostKeys(), c.sc.SessionID(), req.Payload)
		case "keepalive@openssh.com":
			ok = true
		}
		if req.WantReply {
			_ = req.Reply(ok, payload)
		}
	}
}

// announce tells the client all host keys, those that will follow included:
// OpenSSH learns them, after proof, so that a change of keys frightens nobody.
func (c *conn) announce() {
	_, _, _ = c.sc.SendRequest("hostkeys-00@openssh.com", false, hostkey.Announcement(c.hostKeys()))
}

func (c *conn) hostKeys() []ssh.Signer {
	keys := append([]ssh.Signer(nil), c.g.cfg.HostKeys...)
	return append(keys, c.g.cfg.NextKeys...)
}
