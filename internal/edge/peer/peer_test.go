package peer_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey/internal/edge/peer"
)

func mustTrust(t *testing.T, nets ...string) peer.Trust {
	t.Helper()
	tr, err := peer.ParseTrust(nets)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestParseTrustRefusesEverybody(t *testing.T) {
	for _, text := range []string{
		"0.0.0.0/0", "::/0", "0.0.0.0/1", "128.0.0.0/1", "8000::/1", "::ffff:0:0/96", "::ffff:0.0.0.0/97", "::/64x", "10.0.0.1/8",
		"", "example.org", "10.0.0.0/33", "fe80::1%eth0", "::/6", "::ffff:0:0/90",
	} {
		if _, err := peer.ParseTrust([]string{"192.0.2.1", text}); err == nil {
			t.Errorf("ParseTrust(%q) is no error", text)
		}
	}
	for _, text := range []string{"10.0.0.0/8", "192.0.2.7", "fd00::/8", "2001:db8::1", "::ffff:10.0.0.0/104", "fc00::/7"} {
		if _, err := peer.ParseTrust([]string{text}); err != nil {
			t.Errorf("ParseTrust(%q): %v", text, err)
		}
	}
	if (peer.Trust{}).Has(netip.MustParseAddr("127.0.0.1")) {
		t.Error("the zero Trust trusts somebody")
	}
}

func TestClientIsTheRightMostThatIsNotTrusted(t *testing.T) {
	trusted := []string{"10.0.0.0/8", "fd00::/8"}
	const xff, fwd = peer.XForwardedFor, peer.Forwarded
	many := strings.Repeat("10.1.1.1, ", 31)
	tests := []struct {
		name, socket, header string
		lines                []string
		want                 string
	}{
		{"nobody in front", "203.0.113.5", xff, []string{"198.51.100.1"}, "203.0.113.5"},
		{"one proxy", "10.0.0.1", xff, []string{"198.51.100.1"}, "198.51.100.1"},
		{"the caller wrote the left", "10.0.0.1", xff, []string{"1.1.1.1, 198.51.100.1"}, "198.51.100.1"},
		{"two lines are one list", "10.0.0.1", xff, []string{"1.1.1.1", "198.51.100.1, 10.9.9.9"}, "198.51.100.1"},
		{"two proxies", "10.0.0.1", xff, []string{"1.1.1.1, 198.51.100.1, 10.0.0.2"}, "198.51.100.1"},
		{"all trusted", "10.0.0.1", xff, []string{"10.7.7.7, 10.0.0.2"}, "10.7.7.7"},
		{"twenty hops", "10.0.0.1", xff, []string{"198.51.100.1, " + strings.Repeat("10.0.0.2,", 19) + "10.0.0.3"}, "198.51.100.1"},
		{"too many hops", "10.0.0.1", xff, []string{"198.51.100.1, " + many + "10.1.1.2"}, "10.1.1.1"},
		{"no header", "10.0.0.1", xff, nil, "10.0.0.1"},
		{"empty header", "10.0.0.1", xff, []string{""}, "10.0.0.1"},
		{"nonsense ends the search", "10.0.0.1", xff, []string{"198.51.100.1, unknown, 10.0.0.2"}, "10.0.0.2"},
		{"nonsense at the right", "10.0.0.1", xff, []string{"198.51.100.1, evil"}, "10.0.0.1"},
		{"with a port", "10.0.0.1", xff, []string{"198.51.100.1:4711"}, "198.51.100.1"},
		{"IPv6 in brackets", "10.0.0.1", xff, []string{"[2001:db8::1]:443"}, "2001:db8::1"},
		{"IPv6 alone", "fd00::1", xff, []string{"2001:db8::1"}, "2001:db8::1"},
		{"mapped", "::ffff:10.0.0.1", xff, []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"mapped trusted hop", "10.0.0.1", xff, []string{"198.51.100.1, ::ffff:10.3.3.3"}, "198.51.100.1"},
		{"a header that is not read", "10.0.0.1", fwd, nil, "10.0.0.1"},
		{"forwarded", "10.0.0.1", fwd, []string{`for=198.51.100.1;proto=https`}, "198.51.100.1"},
		{"forwarded, quoted", "10.0.0.1", fwd, []string{`proto=https;For="[2001:db8::7]:1"`}, "2001:db8::7"},
		{"forwarded, the right", "10.0.0.1", fwd, []string{`for=1.1.1.1, for=198.51.100.1, for=10.0.0.2;by=10.0.0.1`}, "198.51.100.1"},
		{"forwarded, hidden comma", "10.0.0.1", fwd, []string{`for="1.1.1.1, for=2.2.2.2"`}, "10.0.0.1"},
		{"forwarded, two for", "10.0.0.1", fwd, []string{`for=1.1.1.1;for=2.2.2.2`}, "10.0.0.1"},
		{"forwarded, obfuscated", "10.0.0.1", fwd, []string{`for=_hidden`}, "10.0.0.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			name := "X-Forwarded-For"
			if tt.header == fwd {
				name = "Forwarded"
			}
			h := http.Header{}
			h["X-Forwarded-For"] = []string{"192.0.2.99"} // of the header that is not chosen nothing is read
			if tt.header == xff {
				h = http.Header{"Forwarded": {"for=192.0.2.99"}, "X-Real-Ip": {"192.0.2.99"}}
			}
			if tt.lines != nil {
				h[name] = tt.lines
			}
			got := mustTrust(t, trusted...).Client(netip.MustParseAddr(tt.socket), tt.header, h)
			if got.String() != tt.want {
				t.Errorf("Client(%s, %q) = %s, want %s", tt.socket, tt.lines, got, tt.want)
			}
		})
	}
}

func TestStripLeavesNoAlias(t *testing.T) {
	h := http.Header{}
	for _, name := range []string{
		"Forwarded", "X-Forwarded-For", "X_forwarded_for", "X.Forwarded.Host", "x-forwarded-prefix", "X-Real-Ip", "X_Real_Ip", "Via",
		"True-Client-Ip", "Cf-Connecting-Ip", "X-Original-Url", "Client-Ip", "Front-End-Https",
	} {
		h[name] = []string{"x"}
	}
	h["Content-Type"], h["Cookie"], h["X-Xsrftoken"], h["Te"] = []string{"a"}, []string{"b"}, []string{"c"}, []string{"d"}
	peer.Strip(h)
	if len(h) != 4 {
		t.Errorf("left after Strip: %v", h)
	}
}

// FuzzClient holds it to its two promises whatever is sent: who is not trusted
// speaks for himself alone, and the answer is always an address.
func FuzzClient(f *testing.F) {
	for _, s := range []string{"198.51.100.1", `for="[::1]:1"`, "a,b,,", `"`, `for=";,"`, "[::1", "10.0.0.1, 10.0.0.2"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	trust, _ := peer.ParseTrust([]string{"10.0.0.0/8"})
	f.Fuzz(func(t *testing.T, text string, forwarded bool) {
		name, header := "X-Forwarded-For", peer.XForwardedFor
		if forwarded {
			name, header = "Forwarded", peer.Forwarded
		}
		h := http.Header{name: {text}}
		outside := netip.MustParseAddr("203.0.113.5")
		if got := trust.Client(outside, header, h); got != outside {
			t.Fatalf("Client = %s for a stranger who sent %q", got, text)
		}
		if got := trust.Client(netip.MustParseAddr("10.0.0.1"), header, h); !got.IsValid() || got.Zone() != "" {
			t.Fatalf("Client(%q) = %v", text, got)
		}
	})
}

// v2 makes a PROXY header of version 2.
func v2(command byte, family byte, addresses []byte) []byte {
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), 0x20|command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(addresses)))
	return append(b, addresses...)
}

var ada4 = []byte{198, 51, 100, 7, 127, 0, 0, 1, 0x12, 0x34, 0x20, 0xfb}

func TestProxyProtocol(t *testing.T) {
	unspecified := append(append([]byte{}, ada4...), 4, 0, 1, 0) // a NOOP TLV
	for _, tt := range []struct {
		name    string
		trusted bool
		first   []byte
		remote  string // "": fails
	}{
		{"version 1", true, []byte("PROXY TCP4 198.51.100.7 127.0.0.1 4660 8443\r\n"), "198.51.100.7"},
		{"version 1, IPv6", true, []byte("PROXY TCP6 2001:db8::7 ::1 4660 8443\r\n"), "2001:db8::7"},
		{"version 2", true, v2(1, 0x11, ada4), "198.51.100.7"},
		{"version 2 with TLVs", true, v2(1, 0x11, unspecified), "198.51.100.7"},
		{"version 2, the proxy itself", true, v2(0, 0, nil), "127.0.0.1"},
		{"none", true, nil, ""},
		{"version 1, no address", true, []byte("PROXY TCP4 evil 127.0.0.1 4660 8443\r\n"), ""},
		{"version 1, endless", true, append([]byte("PROXY TCP4 "), bytes.Repeat([]byte("1"), 200)...), ""},
		{"version 2, UDP", true, v2(1, 0x12, ada4), ""},
		{"version 2, unix", true, v2(1, 0x31, make([]byte, 216)), ""},
		{"version 2, huge TLVs", true, v2(1, 0x11, append(append([]byte{}, ada4...), make([]byte, 65000)...)), ""},
		{"version 2, too short", true, v2(1, 0x11, ada4[:4]), ""},
		{"a TLV longer than the header", true, v2(1, 0x11, append(append([]byte{}, ada4...), 4, 0xff, 0xff)), "either"},
		{"from a stranger", false, []byte("PROXY TCP4 198.51.100.7 127.0.0.1 4660 8443\r\n"), "127.0.0.1"},
		{"a stranger without", false, nil, "127.0.0.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			raw, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			nets := []string{"127.0.0.1"}
			if !tt.trusted {
				nets = []string{"192.0.2.0/24"}
			}
			ln := peer.Listen(raw, mustTrust(t, nets...))
			client, err := net.Dial("tcp", raw.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			go func() {
				_, _ = client.Write(append(tt.first, "hello"...))
				_ = client.(*net.TCPConn).CloseWrite()
			}()
			c, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			text, err := io.ReadAll(c)
			if tt.remote == "either" {
				return // it does not fall over
			}
			if tt.remote == "" {
				if err == nil {
					t.Fatalf("it is served: read %q", text)
				}
				if got := peer.AddrOf(c.RemoteAddr()).String(); got != "127.0.0.1" {
					t.Errorf("RemoteAddr = %s after a failure", got)
				}
				return
			}
			want := "hello"
			if !tt.trusted {
				want = string(tt.first) + "hello" // the wrong first bytes of whatever is spoken
			}
			if err != nil || string(text) != want {
				t.Fatalf("read %q, %v, want %q", text, err, want)
			}
			if got := peer.AddrOf(c.RemoteAddr()).String(); got != tt.remote {
				t.Errorf("RemoteAddr = %s, want %s", got, tt.remote)
			}
			if got := c.LocalAddr().String(); got != raw.Addr().String() {
				t.Errorf("LocalAddr = %s, want the socket's %s: a header moved the connection to another door", got, raw.Addr())
			}
		})
	}
}
