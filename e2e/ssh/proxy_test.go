package ssh

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// A load balancer in front: the journal and the session have the caller's own
// address, which only the balancer that is listed can say.
func TestBehindALoadBalancer(t *testing.T) {
	w := open(t)
	p := w.admin
	pem, err := os.ReadFile(p.key)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	const caller = "203.0.113.99"
	enter := func(from, header string) (string, error) {
		d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		nc, err := d.DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", w.port))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_ = nc.SetDeadline(time.Now().Add(time.Minute))
		if _, err := io.WriteString(nc, header); err != nil {
			t.Fatal(err)
		}
		c, channels, requests, err := ssh.NewClientConn(nc, host, &ssh.ClientConfig{
			User: p.Name + "+lab", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), //nolint:gosec // who it is is not the question
		})
		if err != nil {
			return "", err
		}
		client := ssh.NewClient(c, channels, requests)
		defer client.Close()
		s, err := client.NewSession()
		if err != nil {
			return "", err
		}
		out, err := s.Output("echo $SSH_CLIENT")
		return string(out), err
	}
	header := fmt.Sprintf("PROXY TCP4 %s 192.0.2.1 40000 22\r\n", caller)
	if out, err := enter("127.0.0.77", header); err != nil || !strings.HasPrefix(out, caller+" 40000 ") {
		t.Errorf("through the balancer: %q, %v", out, err)
	}
	if out, err := p.CLI(deadline(t, time.Minute), "audit", "search", "--action", "session.signin", "--ip", caller, "-o", "json"); err != nil || !strings.Contains(out, caller) {
		t.Errorf("the journal has %.300s, %v", out, err)
	}
	if out, err := enter("127.0.0.77", ""); err == nil {
		t.Errorf("the balancer without its header: %q", out)
	}
	if out, err := enter("127.0.0.78", header); err == nil {
		t.Errorf("somebody who says to be a balancer: %q", out)
	}
	if out, err := enter("127.0.0.78", ""); err != nil || !strings.HasPrefix(out, "127.0.0.78 ") {
		t.Errorf("somebody who comes directly: %q, %v", out, err)
	}
}
