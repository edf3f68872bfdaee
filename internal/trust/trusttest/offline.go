package trusttest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey/internal/trust"
	"github.com/baileyhq/bailey/internal/trust/policy"
	"github.com/baileyhq/bailey/internal/trust/sign"
)

// Offline decides in every way that must not touch the network, with a source
// that fails the test when it does.
func Offline(t *testing.T, source trust.Source) {
	t.Helper()
	private, public, err := sign.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := sign.ParseKey(private)
	if err != nil {
		t.Fatal(err)
	}
	const repository = "registry.example.org/team/app"
	text := "version: 1\nauthorities:\n  us:\n    key:\n      pem: |\n        " + strings.ReplaceAll(strings.TrimSpace(string(public)), "\n", "\n        ") +
		"\nrules:\n  - name: ours\n    match: [registry.example.org/team/*]\n    require: {of: [us]}\n"
	p, err := policy.Parse("policy.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := trust.New(trust.Config{Policies: func() *policy.Policy { return p }, Source: source})
	if err != nil {
		t.Fatal(err)
	}
	manifest, _, _ := ImageManifest("app")
	digest := Digest(manifest)
	bundle, err := sign.Bundle(key, repository, digest, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ev := trust.Evidence{Repository: repository, Digest: digest, Items: []trust.Item{
		{Kind: trust.ImageManifest, Subject: digest, Digest: digest, Data: manifest},
		{Kind: trust.SigstoreBundle, Subject: digest, Digest: Digest(bundle), Data: bundle},
	}}
	if err := v.Offer(t.Context(), ev); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		req  trust.Request
		want trust.Class
	}{
		{trust.Request{Image: trust.Reference{Repository: repository, Digest: digest}}, trust.Allowed},
		{trust.Request{Image: trust.Reference{Repository: repository, Digest: digest}, Offline: true, Refresh: true}, trust.Allowed},
		{trust.Request{Image: trust.Reference{Repository: repository, Digest: Digest(nil)}, Offline: true}, trust.Unavailable},
		{trust.Request{Image: trust.Reference{Repository: repository, Tag: "v1"}, Offline: true}, trust.Denied},
		{trust.Request{Image: trust.Reference{Repository: "registry.example.org/other", Tag: "v1"}}, trust.Denied},
		{trust.Request{Image: trust.Reference{Repository: "registry.example.org/other", Digest: digest}}, trust.Denied},
	} {
		got, err := v.Decide(t.Context(), tt.req)
		if err != nil || got.Class != tt.want {
			t.Errorf("%s: %v, want %s", fmt.Sprintf("Decide(%s, offline %t)", tt.req.Image, tt.req.Offline), fmt.Sprint(got.Class, "/", got.Reason, " ", got.Msg, " ", err), tt.want)
		}
	}
}
