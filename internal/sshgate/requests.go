package sshgate

import (
	"crypto/rand"

	"golang.org/x/crypto/ssh"
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
			ok, payload = c.prove(req.Payload)
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
	var payload []byte
	for _, key := range c.hostKeys() {
		payload = appendString(payload, key.PublicKey().Marshal())
	}
	_, _, _ = c.sc.SendRequest("hostkeys-00@openssh.com", false, payload)
}

func (c *conn) hostKeys() []ssh.Signer {
	keys := append([]ssh.Signer(nil), c.g.cfg.HostKeys...)
	return append(keys, c.g.cfg.NextKeys...)
}

// prove shows that the server holds the keys that it announced.
func (c *conn) prove(payload []byte) (ok bool, answer []byte) {
	for proofs := 0; len(payload) > 0; proofs++ {
		blob, rest, ok := cutString(payload)
		if !ok || proofs > 8 {
			return false, nil
		}
		payload = rest
		signed := false
		for _, key := range c.hostKeys() {
			if string(key.PublicKey().Marshal()) != string(blob) {
				continue
			}
			data := appendString(nil, []byte("hostkeys-prove-00@openssh.com"))
			data = appendString(data, c.sc.SessionID())
			data = appendString(data, blob)
			sig, err := key.Sign(rand.Reader, data)
			if err != nil {
				return false, nil
			}
			answer = appendString(answer, ssh.Marshal(sig))
			signed = true
			break
		}
		if !signed {
			return false, nil
		}
	}
	return true, answer
}

func appendString(dst, s []byte) []byte {
	n := len(s)
	return append(append(dst, byte(n>>24), byte(n>>16), byte(n>>8), byte(n)), s...) //nolint:gosec // far below 2^32
}

func cutString(in []byte) (s, rest []byte, ok bool) {
	if len(in) < 4 {
		return nil, nil, false
	}
	n := uint64(in[0])<<24 | uint64(in[1])<<16 | uint64(in[2])<<8 | uint64(in[3])
	if n > uint64(len(in)-4) { //nolint:gosec // not negative
		return nil, nil, false
	}
	return in[4 : 4+n], in[4+n:], true
}
