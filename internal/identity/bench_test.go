package identity_test

import (
	"testing"

	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/identity/identitytest"
)

// What every request with a cookie pays.
func BenchmarkBySession(b *testing.B) {
	w := identitytest.NewWorld(b)
	cookie, _ := identitytest.SignIn(b, w.Service, "alice")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.BySession(b.Context(), cookie, home); err != nil {
			b.Fatal(err)
		}
	}
}

// The same from all cores at once.
func BenchmarkBySessionParallel(b *testing.B) {
	w := identitytest.NewWorld(b)
	cookie, _ := identitytest.SignIn(b, w.Service, "alice")
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := w.BySession(ctx, cookie, home); err != nil {
				b.Error(err)
			}
		}
	})
}

// What every request to a workspace pays.
func BenchmarkBySessionID(b *testing.B) {
	w := identitytest.NewWorld(b)
	_, alice := identitytest.SignIn(b, w.Service, "alice")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.BySessionID(b.Context(), alice.UserID, alice.Session, home); err != nil {
			b.Fatal(err)
		}
	}
}

// What every request of a program pays.
func BenchmarkByToken(b *testing.B) {
	w := identitytest.NewWorld(b)
	_, alice := identitytest.SignIn(b, w.Service, "alice")
	grant, err := w.CreateToken(b.Context(), alice, identity.TokenRequest{Note: "", Lifetime: 0})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.ByToken(b.Context(), grant.Secret, home); err != nil {
			b.Fatal(err)
		}
	}
}

// What a tunnel pays to hang on its session.
func BenchmarkEnded(b *testing.B) {
	w := identitytest.NewWorld(b)
	_, alice := identitytest.SignIn(b, w.Service, "alice")
	b.ReportAllocs()
	for b.Loop() {
		_, release := w.Ended(alice)
		release()
	}
}

// What a sign-in costs, most of it on purpose.
func BenchmarkSignIn(b *testing.B) {
	w := identitytest.NewWorld(b, patient)
	b.ReportAllocs()
	for b.Loop() {
		identitytest.SignIn(b, w.Service, "alice")
	}
}
