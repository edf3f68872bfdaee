package app

import (
	"context"
	"net"
	"strings"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/config"
	"github.com/baileyhq/bailey/internal/edge/peer"
	"github.com/baileyhq/bailey/internal/sshgate"
	"github.com/baileyhq/bailey/internal/sshgate/hostkey"
	"github.com/baileyhq/bailey/internal/sshkey"
)

// listenSSH opens the SSH door, if the configuration has one.
func (a *App) listenSSH(ctx context.Context, f *config.Config) error {
	if f.Listen.SSH == "" {
		return nil
	}
	keys, next, err := hostkey.Load(a.st.path("ssh"), f.SSH.HostKeys)
	if err != nil {
		return err
	}
	door, err := sshDoorAt(a.origins.Console(), f.SSH.Public, nil, nil)
	if err != nil {
		return err
	}
	authority, err := hostkey.LoadAuthority(a.st.path("ssh"), []string{strings.ToLower(door.Host)})
	if err != nil {
		return err
	}
	if a.ssh, err = sshgate.New(ctx, sshgate.Config{
		People: a.identity, Workspaces: a.workspaces, Filter: a.filtering.filter, Audit: a.journal, Log: a.log,
		HostKeys: keys, NextKeys: next, Authority: authority, Live: a.sshLive, Recorder: a.witness,
		Policy: func(class string) sshgate.Policy { return sshPolicy(a.settings.configuration().SSHFor(class)) },
	}); err != nil {
		return err
	}
	var lc net.ListenConfig
	if a.sshLn, err = lc.Listen(ctx, "tcp", f.Listen.SSH); err != nil {
		return &bailey.Error{
			Kind: bailey.Unavailable, Msg: "cannot listen on " + f.Listen.SSH + " for SSH",
			Hint: "is the port taken, by another bailey or the machine's own sshd? choose another with listen.ssh", Cause: err,
		}
	}
	told, err := f.Proxies.ProtocolTrust()
	if err != nil {
		return err // the configuration was checked
	}
	a.sshLn = peer.Listen(a.sshLn, told)
	a.onClose(func() error {
		_ = a.sshLn.Close() // Drain may have closed it
		return nil
	})
	var wires [][]byte
	for _, k := range append(keys, next...) {
		wires = append(wires, k.PublicKey().Marshal())
	}
	if a.sshAt, err = sshDoorAt(a.origins.Console(), f.SSH.Public, a.sshLn.Addr(), wires); err != nil {
		return err
	}
	a.sshAt.HostCA, err = sshkey.Line(authority.PublicKey().Marshal(), "")
	return err
}

// serveSSH serves until ctx ends, and ends what is open then.
func (a *App) serveSSH(ctx context.Context) error {
	if a.ssh == nil {
		return nil
	}
	stopped := make(chan error, 1)
	go func() { // received below
		<-ctx.Done()
		_ = a.sshLn.Close()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		stopped <- a.ssh.Drain(last)
	}()
	if err := a.ssh.Serve(a.sshLn); err != nil {
		return err
	}
	return <-stopped
}

// sshPolicy is the file's words in the door's own.
func sshPolicy(s config.SSH) sshgate.Policy {
	return sshgate.Policy{
		Access: sshgate.Access(s.Access), ForceCommand: s.ForceCommand, StartOnConnect: bool(s.StartOnConnect),
		Forwarding: sshgate.Forwarding(s.Forwarding), Ports: s.ForwardPorts,
		RemoteForwarding: bool(s.RemoteForwarding), AgentForwarding: bool(s.AgentForwarding),
		Output: sshgate.Output(s.ExecOutput), Files: sshgate.Files(s.Files), Recording: sshgate.Recording(s.Recording),
	}
}

// SSHAddr returns where SSH is served, or nil.
func (a *App) SSHAddr() net.Addr {
	if a.sshLn == nil {
		return nil
	}
	return a.sshLn.Addr()
}
