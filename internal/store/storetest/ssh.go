package storetest

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/secret"
)

func sshAccess() []story {
	return []story{
		{"SSHKeys", sshKeys},
		{"OneSSHKeyIsOnePersons", sshKeysAreUnique},
		{"SSHKeysThatEndAreTold", sshKeysEnd},
		{"ServersShareAnSSHAuthority", sshAuthority},
		{"SSHCertificates", sshCertificates},
		{"SSHKeysThatWait", sshPending},
	}
}

// sshKey makes a key that is not stored yet.
func (w *world) sshKey(u bailey.User, name string) bailey.SSHKey {
	w.Helper()
	return bailey.SSHKey{
		ID: bailey.NewID(), UserID: u.ID, Name: name, Type: "ssh-ed25519", Fingerprint: "SHA256:" + u.Name + name,
		Wire: []byte{0, 0, 0, 1, 0xff, 'x'}, Comment: name + "@home", CreatedAt: w.clock.Now(), ExpiresAt: w.clock.Now().Add(time.Hour),
	}
}

func sshKeys(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	a1, b1 := w.sshKey(alice, "laptop"), w.sshKey(bob, "laptop")
	w.must(w.CreateSSHKey(ctx, a1))
	w.must(w.CreateSSHKey(ctx, b1))
	w.clock.move(time.Minute)
	a2 := w.sshKey(alice, "desktop")
	a2.ExpiresAt = time.Time{}
	w.must(w.CreateSSHKey(ctx, a2))

	got, u, err := w.SSHKeyByFingerprint(ctx, a1.Fingerprint)
	w.must(err)
	if diff := cmp.Diff(a1, got) + cmp.Diff(alice, u); diff != "" {
		w.Errorf("SSHKeyByFingerprint(a1) differs (-want +got):\n%s", diff)
	}
	_, _, err = w.SSHKeyByFingerprint(ctx, "SHA256:none")
	w.refused(err, bailey.NotFound)
	_, _, err = w.SSHKeyByFingerprint(ctx, "SHA256:\x00")
	w.refused(err, bailey.NotFound)

	later := w.clock.Now().Add(time.Minute)
	w.must(w.TouchSSHKey(ctx, a1.ID, later, "192.0.2.1"))
	w.must(w.TouchSSHKey(ctx, a1.ID, later.Add(-time.Second), "192.0.2.2"))
	w.refused(w.TouchSSHKey(ctx, "nothing", later, ""), bailey.NotFound)
	a1.UsedAt, a1.UsedFrom = later, "192.0.2.1"
	all, err := w.SSHKeys(ctx, alice.ID)
	w.must(err)
	if diff := cmp.Diff([]bailey.SSHKey{a2, a1}, all); diff != "" {
		w.Errorf("SSHKeys(alice) differ (-want +got):\n%s", diff)
	}

	w.refused(w.RenameSSHKey(ctx, bob.ID, a1.ID, "mine"), bailey.NotFound)
	w.refused(w.RenameSSHKey(ctx, alice.ID, a1.ID, "desktop"), bailey.Conflict, "desktop")
	w.refused(w.RenameSSHKey(ctx, alice.ID, a1.ID, ""), bailey.Invalid)
	w.must(w.RenameSSHKey(ctx, alice.ID, a1.ID, "work"))
	w.refused(w.DeleteSSHKey(ctx, bob.ID, a1.ID), bailey.NotFound)
	w.must(w.DeleteSSHKey(ctx, alice.ID, a1.ID))
	w.refused(w.DeleteSSHKey(ctx, alice.ID, a1.ID), bailey.NotFound)
	w.must(w.DeleteSSHKeys(ctx, alice.ID))
	if all, err := w.SSHKeys(ctx, alice.ID); err != nil || len(all) != 0 {
		w.Errorf("SSHKeys(alice) = %v, %v; want none", all, err)
	}
	if all, err := w.SSHKeys(ctx, bob.ID); err != nil || len(all) != 1 {
		w.Errorf("SSHKeys(bob) = %v, %v; want his", all, err)
	}
	w.must(w.DeleteUser(ctx, bob.ID))
	_, _, err = w.SSHKeyByFingerprint(ctx, b1.Fingerprint)
	w.refused(err, bailey.NotFound)
}

func sshKeysAreUnique(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	a := w.sshKey(alice, "laptop")
	w.must(w.CreateSSHKey(ctx, a))
	stolen := w.sshKey(bob, "mine")
	stolen.Fingerprint = a.Fingerprint
	w.refused(w.CreateSSHKey(ctx, stolen), bailey.Conflict, "in use")
	if err := w.CreateSSHKey(ctx, stolen); err != nil && bytes.Contains([]byte(err.Error()), []byte("alice")) {
		w.Errorf("the refusal says whose the key is: %v", err)
	}
	w.refused(w.CreateSSHKey(ctx, w.sshKey(alice, "laptop")), bailey.Conflict, "laptop")
	w.refused(w.CreateSSHKey(ctx, w.sshKey(bailey.User{ID: "nobody", Name: "nobody"}, "x")), bailey.NotFound)
	for _, spoil := range []func(*bailey.SSHKey){
		func(k *bailey.SSHKey) { k.ID = "" }, func(k *bailey.SSHKey) { k.Name = "" },
		func(k *bailey.SSHKey) { k.Fingerprint = "" }, func(k *bailey.SSHKey) { k.Wire = nil },
	} {
		k := w.sshKey(bob, "other")
		spoil(&k)
		w.refused(w.CreateSSHKey(ctx, k), bailey.Invalid)
	}
	// Both want the same new key at once: one gets it.
	again := w.open(w.T, w.clock.Now)
	keys := []bailey.SSHKey{w.sshKey(alice, "new"), w.sshKey(bob, "new")}
	keys[1].Fingerprint = keys[0].Fingerprint
	errs := together(2, func(i int) error { return []Store{w.Store, again}[i].CreateSSHKey(ctx, keys[i]) })
	if n := w.succeeded(errs, bailey.Conflict); n != 1 {
		w.Errorf("%d of two people got one key", n)
	}
}

func sshKeysEnd(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	soon, late, never := w.sshKey(alice, "soon"), w.sshKey(bob, "late"), w.sshKey(bob, "never")
	late.ExpiresAt, never.ExpiresAt = w.clock.Now().Add(48*time.Hour), time.Time{}
	for _, k := range []bailey.SSHKey{soon, late, never} {
		w.must(w.CreateSSHKey(ctx, k))
	}
	names := func(all []bailey.SSHKey, err error) (out []string) {
		w.Helper()
		w.must(err)
		for _, k := range all {
			out = append(out, k.Name)
		}
		return out
	}
	if got := names(w.ExpiringSSHKeys(ctx, w.clock.Now().Add(time.Hour))); !slices.Equal(got, []string{"soon"}) {
		w.Errorf("ExpiringSSHKeys = %v, want soon", got)
	}
	again := w.open(w.T, w.clock.Now)
	firsts := make([]bool, 4)
	errs := together(len(firsts), func(i int) (err error) {
		firsts[i], err = []Store{w.Store, again}[i%2].RemindSSHKey(ctx, soon.ID, w.clock.Now())
		return err
	})
	if n := w.succeeded(errs); n != len(firsts) || slices.Index(firsts, true) < 0 || slices.Index(firsts[slices.Index(firsts, true)+1:], true) >= 0 {
		w.Errorf("RemindSSHKey was first %v, %v; want once", firsts, errs)
	}
	if got := names(w.ExpiringSSHKeys(ctx, w.clock.Now().Add(72*time.Hour))); !slices.Equal(got, []string{"late"}) {
		w.Errorf("ExpiringSSHKeys after a reminder = %v, want late", got)
	}
	w.clock.move(48 * time.Hour)
	if got := names(w.ExpiringSSHKeys(ctx, w.clock.Now().Add(time.Hour))); len(got) != 0 {
		w.Errorf("ExpiringSSHKeys = %v, want none: it has ended", got)
	}
}

func sshAuthority(w *world) {
	ctx := w.Context()
	_, err := w.SSHAuthority(ctx, "user", secret.Value{})
	w.refused(err, bailey.NotFound)
	again := w.open(w.T, w.clock.Now)
	got := make([]string, 8)
	errs := together(len(got), func(i int) error {
		v, err := []Store{w.Store, again}[i%2].SSHAuthority(ctx, "user", secret.New(fmt.Sprintf("seed %d \x00\xff", i)))
		got[i] = v.Reveal()
		return err
	})
	if n := w.succeeded(errs); n != len(got) || len(slices.Compact(slices.Clone(got))) != 1 || got[0] == "" {
		w.Errorf("servers got %q, %v; want one for all", got, errs)
	}
	host, err := w.SSHAuthority(ctx, "host", secret.New("another"))
	w.must(err)
	if host.Reveal() != "another" {
		w.Errorf("the host's authority is %q", host.Reveal())
	}
}

func sshCertificates(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	now := w.clock.Now()
	issue := func(u bailey.User, serial uint64, madeBy string) bailey.SSHCertificate {
		c := bailey.SSHCertificate{
			Serial: serial, ID: bailey.NewID(), UserID: u.ID, Fingerprint: "SHA256:x", MadeBy: madeBy, MadeFrom: "192.0.2.1",
			CreatedAt: now, ExpiresAt: now.Add(time.Hour),
		}
		w.must(w.CreateSSHCertificate(ctx, c))
		return c
	}
	const biggest = 1<<63 - 1
	a1, a2, a3, b1 := issue(alice, 1, "s1"), issue(alice, 2, "s1"), issue(alice, biggest, "s2"), issue(bob, 4, "s1")
	got, u, err := w.SSHCertificateBySerial(ctx, biggest)
	w.must(err)
	if diff := cmp.Diff(a3, got) + cmp.Diff(alice, u); diff != "" {
		w.Errorf("SSHCertificateBySerial differs (-want +got):\n%s", diff)
	}
	for _, serial := range []uint64{0, 5, 1 << 63, 1<<64 - 1} {
		_, _, err = w.SSHCertificateBySerial(ctx, serial)
		w.refused(err, bailey.NotFound)
	}
	w.refused(w.CreateSSHCertificate(ctx, a1), bailey.Conflict)
	for _, serial := range []uint64{0, 1 << 63} {
		bad := a1
		bad.Serial, bad.ID = serial, bailey.NewID()
		w.refused(w.CreateSSHCertificate(ctx, bad), bailey.Invalid)
	}
	foreign := a1
	foreign.Serial, foreign.ID, foreign.UserID = 77, bailey.NewID(), "nobody"
	w.refused(w.CreateSSHCertificate(ctx, foreign), bailey.NotFound)
	w.must(w.TouchSSHCertificate(ctx, b1.ID, now.Add(time.Minute), "192.0.2.9"))
	w.refused(w.TouchSSHCertificate(ctx, "nothing", now, ""), bailey.NotFound)

	revoke := func(u bailey.User, serial uint64, madeBy string, want ...string) {
		w.Helper()
		ids, err := w.RevokeSSHCertificates(ctx, u.ID, serial, madeBy, now)
		w.must(err)
		slices.Sort(ids)
		slices.Sort(want)
		if !slices.Equal(ids, want) {
			w.Errorf("RevokeSSHCertificates(%s, %d, %q) = %v, want %v", u.Name, serial, madeBy, ids, want)
		}
	}
	revoke(bob, 1, "")
	revoke(alice, 1<<63, "")
	revoke(alice, 1, "", a1.ID)
	revoke(alice, 1, "")
	revoke(alice, 0, "s1", a2.ID)
	revoke(alice, 0, "", a3.ID)
	all, err := w.SSHCertificates(ctx, bob.ID)
	if err != nil || len(all) != 1 || !all[0].RevokedAt.IsZero() || all[0].UsedFrom != "192.0.2.9" {
		w.Errorf("SSHCertificates(bob) = %+v, %v; want his, good and used", all, err)
	}
	if all, err := w.SSHCertificates(ctx, alice.ID); err != nil || len(all) != 3 || all[0].RevokedAt.IsZero() {
		w.Errorf("SSHCertificates(alice) = %+v, %v; want three, revoked", all, err)
	}
	w.clock.move(time.Hour)
	if all, err := w.SSHCertificates(ctx, bob.ID); err != nil || len(all) != 0 {
		w.Errorf("SSHCertificates(bob) = %+v, %v; want none: it has ended", all, err)
	}
	// It stays known while somebody might bring it back with the clock.
	_, _, err = w.SSHCertificateBySerial(ctx, b1.Serial)
	w.must(err)
	w.must(w.DeleteUser(ctx, bob.ID))
	_, _, err = w.SSHCertificateBySerial(ctx, b1.Serial)
	w.refused(err, bailey.NotFound)
}

func sshPending(w *world) {
	ctx := w.Context()
	alice := w.user("alice", bailey.RoleAdmin)
	key := w.sshKey(alice, "new")
	wait := func(name, fingerprint, code string) bailey.SSHPending {
		w.Helper()
		p := bailey.SSHPending{
			Name: name, Type: key.Type, Fingerprint: fingerprint, Wire: key.Wire, IP: "192.0.2.1", Client: "SSH-2.0-x\x00",
			CreatedAt: w.clock.Now(), ExpiresAt: w.clock.Now().Add(time.Minute),
		}
		w.must(w.CreateSSHPending(ctx, p, code))
		p.Client = "SSH-2.0-x\uFFFD"
		return p
	}
	wait("alice", key.Fingerprint, "old code")
	want := wait("alice", key.Fingerprint, "code")
	other := wait("bob", key.Fingerprint, "bob's code") // of the same key, in another name
	_, err := w.SSHPending(ctx, "old code")
	w.refused(err, bailey.NotFound)
	for code, want := range map[string]bailey.SSHPending{"code": want, "bob's code": other} {
		got, err := w.SSHPending(ctx, code)
		w.must(err)
		if diff := cmp.Diff(want, got); diff != "" {
			w.Errorf("SSHPending(%s) differs (-want +got):\n%s", code, diff)
		}
	}
	wrong := key
	wrong.Wire = []byte("another key")
	w.refused(w.FinishSSHPending(ctx, "code", wrong), bailey.Conflict)
	w.refused(w.FinishSSHPending(ctx, "no code", key), bailey.NotFound)
	again := w.open(w.T, w.clock.Now)
	errs := together(4, func(i int) error { return []Store{w.Store, again}[i%2].FinishSSHPending(ctx, "code", key) })
	if n := w.succeeded(errs, bailey.NotFound); n != 1 {
		w.Errorf("the code bound %d times, %v; want once", n, errs)
	}
	if got, _, err := w.SSHKeyByFingerprint(ctx, key.Fingerprint); err != nil || got.ID != key.ID {
		w.Errorf("the bound key = %+v, %v", got, err)
	}
	_, err = w.SSHPending(ctx, "code")
	w.refused(err, bailey.NotFound)
	// A key that cannot be bound leaves the code where it was.
	w.refused(w.FinishSSHPending(ctx, "bob's code", key), bailey.Conflict)
	_, err = w.SSHPending(ctx, "bob's code")
	w.must(err)
	w.must(w.DeleteSSHPending(ctx, "bob's code"))
	w.refused(w.DeleteSSHPending(ctx, "bob's code"), bailey.NotFound)
	wait("alice", "SHA256:late", "late")
	w.clock.move(time.Minute)
	_, err = w.SSHPending(ctx, "late")
	w.refused(err, bailey.NotFound)
	w.refused(w.FinishSSHPending(ctx, "late", key), bailey.NotFound)
}
