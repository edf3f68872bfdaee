// Package opening reads how a connection out of a workspace begins: a request
// to an HTTP proxy, a SOCKS5 handshake, or the ClientHello of TLS. The bytes are
// hostile. It takes one spelling of everything, the one that RFC 9112, RFC 1928
// and RFC 8446 require of a sender, so that nobody behind it can read them
// differently, and refuses the rest. It decides nothing about who may go where.
package opening

import (
	"bufio"
	"errors"
	"fmt"
)

// A Kind is what a connection begins with.
type Kind int

// The kinds, told apart by the first byte.
const (
	HTTP   Kind = iota // a letter: a method
	SOCKS5             // 5
	SOCKS4             // 4: it can name addresses only, so it is not spoken
	TLS                // 22: a handshake record, where a request should be
	Other
)

// Sniff waits for the first byte and says what begins with it. The byte stays
// unread.
func Sniff(r *bufio.Reader) (Kind, error) {
	b, err := r.Peek(1)
	if err != nil {
		return Other, err
	}
	switch c := b[0]; {
	case c == 5:
		return SOCKS5, nil
	case c == 4:
		return SOCKS4, nil
	case c == recordHandshake:
		return TLS, nil
	case 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z':
		return HTTP, nil
	}
	return Other, nil
}

// A BadError says that bytes are not what they should be, in words for whoever
// sent them, and with which HTTP status to answer.
type BadError struct {
	Status int
	Msg    string
}

func (e *BadError) Error() string { return e.Msg }

func bad(status int, format string, args ...any) error {
	return &BadError{status, fmt.Sprintf(format, args...)}
}

// ErrMore says that the bytes are right as far as they go.
var ErrMore = errors.New("more bytes are needed")
