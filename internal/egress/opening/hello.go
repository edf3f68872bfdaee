package opening

import (
	"errors"
	"fmt"
)

const (
	recordHandshake = 22
	clientHello     = 1

	// MaxHello is the most bytes in which a ClientHello must be whole, record
	// headers among them. One with post-quantum keys has about 1,800.
	MaxHello = 16<<10 + maxRecords*5
	// maxRecords bounds into how many records it may be cut: senders use one.
	maxRecords = 32
	maxRecord  = 1 << 14 // RFC 8446 5.1
)

// ErrNotTLS says that bytes are not a ClientHello of TLS 1.0 to 1.3 as those
// who are to be understood by everybody send it.
var ErrNotTLS = errors.New("this is not the beginning of TLS")

// A Hello is what a ClientHello says without being opened.
type Hello struct {
	ServerName string // empty: none
	Encrypted  bool   // an encrypted ClientHello is inside, or what looks like one
}

// ParseHello reads a ClientHello from the first bytes of a stream. It returns
// [ErrMore] while b is the beginning of one, and an error that wraps
// [ErrNotTLS] as soon as it cannot become one, or is not whole within
// [MaxHello].
func ParseHello(b []byte) (Hello, error) {
	msg, err := handshake(b)
	if err != nil {
		return Hello{}, err
	}
	return parseHello(msg)
}

func notTLS(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrNotTLS, fmt.Sprintf(format, args...))
}

// handshake returns the first handshake message, put together from its records.
func handshake(b []byte) ([]byte, error) {
	var msg []byte
	for n := 0; ; n++ {
		want := -1
		if len(msg) >= 4 {
			want = 4 + int(msg[1])<<16 + int(msg[2])<<8 + int(msg[3])
			if want > 4+maxRecord {
				return nil, notTLS("the ClientHello is too long")
			}
			if len(msg) > want {
				return nil, notTLS("something is behind the ClientHello in its record")
			}
		}
		if len(msg) > 0 && msg[0] != clientHello {
			return nil, notTLS("the first message is not a ClientHello")
		}
		if len(msg) == want {
			return msg[4:], nil
		}
		if n == maxRecords {
			return nil, notTLS("the ClientHello is in too many pieces")
		}
		// Each byte is checked as soon as it is there: what is not TLS is not
		// waited for.
		if len(b) > 0 && b[0] != recordHandshake || len(b) > 1 && b[1] != 3 || len(b) > 2 && b[2] > 4 {
			return nil, notTLS("the first record is not a handshake")
		}
		if len(b) < 5 {
			return nil, ErrMore
		}
		size := int(b[3])<<8 + int(b[4])
		if size == 0 || size > maxRecord {
			return nil, notTLS("a record has %d bytes", size)
		}
		b = b[5:]
		if len(b) < size {
			if len(msg) == 0 && len(b) > 0 && b[0] != clientHello {
				return nil, notTLS("the first message is not a ClientHello")
			}
			return nil, ErrMore
		}
		msg = append(msg, b[:size]...)
		b = b[size:]
	}
}

// A cursor reads length-prefixed bytes; once it has failed it stays failed.
type cursor struct {
	b  []byte
	ok bool
}

func (c *cursor) take(n int) []byte {
	if !c.ok || n > len(c.b) {
		c.ok = false
		return nil
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

// vector takes a vector whose length has n bytes and is within least and most.
func (c *cursor) vector(n, least, most int) []byte {
	size := 0
	for _, d := range c.take(n) {
		size = size<<8 + int(d)
	}
	if size < least || size > most {
		c.ok = false
	}
	return c.take(size)
}

const (
	extServerName = 0
	extEncrypted  = 0xfe0d // encrypted_client_hello
	extESNI       = 0xffce // its first draft
)

// parseHello reads the message as RFC 8446 4.1.2 has it.
func parseHello(msg []byte) (h Hello, err error) {
	c := &cursor{msg, true}
	version := c.take(2)
	c.take(32)                      // random
	c.vector(1, 0, 32)              // legacy_session_id
	suites := c.vector(2, 2, 65534) // cipher_suites
	c.vector(1, 1, 255)             // legacy_compression_methods
	if !c.ok || version[0] != 3 || len(suites)%2 != 0 {
		return h, notTLS("the ClientHello is malformed")
	}
	if len(c.b) == 0 {
		return h, nil // no extensions: TLS 1.2 allows it
	}
	exts := &cursor{c.vector(2, 0, 65535), c.ok}
	if !c.ok || len(c.b) != 0 {
		return h, notTLS("the ClientHello's extensions are malformed")
	}
	seen := map[int]bool{}
	for len(exts.b) > 0 {
		kind := exts.take(2)
		body := exts.vector(2, 0, 65535)
		if !exts.ok {
			return h, notTLS("an extension is cut short")
		}
		id := int(kind[0])<<8 + int(kind[1])
		if seen[id] { // two server names, of which each side reads another
			return h, notTLS("extension %d is there twice", id)
		}
		seen[id] = true
		switch id {
		case extEncrypted, extESNI:
			h.Encrypted = true
		case extServerName:
			if h.ServerName, err = serverName(body); err != nil {
				return h, err
			}
		}
	}
	return h, nil
}

// serverName reads the extension as RFC 6066 3 has it: a list, with one name
// of type host_name and nothing else.
func serverName(body []byte) (string, error) {
	c := &cursor{body, true}
	list := &cursor{c.vector(2, 1, 65535), c.ok}
	kind := list.take(1)
	name := list.vector(2, 1, 255)
	if !c.ok || !list.ok || len(c.b) != 0 || len(list.b) != 0 || kind[0] != 0 {
		return "", notTLS("the server name is malformed")
	}
	for _, ch := range name {
		if ch <= ' ' || ch >= 0x7f {
			return "", notTLS("the server name has a character that names do not have")
		}
	}
	return string(name), nil
}
