package opening

import (
	"bufio"
	"fmt"
	"io"
)

// What SOCKS5 answers (RFC 1928 6).
const (
	SocksGranted     byte = 0
	SocksFailed      byte = 1
	SocksNotAllowed  byte = 2
	SocksUnreachable byte = 4
	SocksRefused     byte = 5
	SocksNoCommand   byte = 7
	SocksNoAddress   byte = 8
)

// A SocksError says why a SOCKS5 handshake was refused, and with which reply;
// Reply is 0xff when the method was refused already.
type SocksError struct {
	Reply byte
	Msg   string
}

func (e *SocksError) Error() string { return e.Msg }

// ReadSocks reads a SOCKS5 handshake as far as the command, answering the offer
// of methods on w. It takes CONNECT to a host name, without authentication: who
// is asking is known already. Addresses are refused, because a name cannot be
// decided by where somebody else found it to lead. After nil or a [SocksError]
// the caller writes [SocksReply].
func ReadSocks(r *bufio.Reader, w io.Writer) (host string, port int, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", 0, err
	}
	if head[0] != 5 || head[1] == 0 {
		return "", 0, &SocksError{0xff, "this is not SOCKS5"}
	}
	methods := make([]byte, head[1])
	if _, err := io.ReadFull(r, methods); err != nil {
		return "", 0, err
	}
	none := false
	for _, m := range methods {
		none = none || m == 0
	}
	if !none {
		return "", 0, &SocksError{0xff, "SOCKS5 without authentication is spoken here"}
	}
	if _, err := w.Write([]byte{5, 0}); err != nil {
		return "", 0, err
	}
	var cmd [4]byte
	if _, err := io.ReadFull(r, cmd[:]); err != nil {
		return "", 0, err
	}
	if cmd[0] != 5 || cmd[2] != 0 {
		return "", 0, &SocksError{SocksFailed, "this is not a SOCKS5 request"}
	}
	if cmd[1] != 1 {
		return "", 0, &SocksError{SocksNoCommand, "of SOCKS5, CONNECT is spoken"}
	}
	var size int
	switch cmd[3] {
	case 1:
		size = 4
	case 4:
		size = 16
	case 3:
		n, err := r.ReadByte()
		if err != nil {
			return "", 0, err
		}
		size = int(n)
	default:
		return "", 0, &SocksError{SocksNoAddress, "this is not an address type of SOCKS5"}
	}
	rest := make([]byte, size+2)
	if _, err := io.ReadFull(r, rest); err != nil {
		return "", 0, err
	}
	port = int(rest[size])<<8 | int(rest[size+1])
	switch {
	case cmd[3] != 3:
		return "", 0, &SocksError{SocksNotAllowed, "it is an address, and only names can be allowed: let the proxy resolve (socks5h)"}
	case size == 0 || port == 0:
		return "", 0, &SocksError{SocksFailed, fmt.Sprintf("%.40q, port %d, cannot be connected to", rest[:size], port)}
	}
	return string(rest[:size]), port, nil
}

// SocksReply returns the answer to a command, or to an offer of methods when
// reply is 0xff. The address in it is nobody's: where a name leads is not told.
func SocksReply(reply byte) []byte {
	if reply == 0xff {
		return []byte{5, 0xff}
	}
	return []byte{5, reply, 0, 1, 0, 0, 0, 0, 0, 0}
}
