package totp_test

import (
	"encoding/base32"
	"encoding/xml"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/totp"
)

// The table in appendix B of RFC 6238, its last six digits.
func TestCodesAreThoseOfTheRFC(t *testing.T) {
	key := secret.New(base32.StdEncoding.EncodeToString([]byte("12345678901234567890")))
	for unix, want := range map[int64]string{
		59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130",
	} {
		if got := totp.Code(key, totp.Step(time.Unix(unix, 0))); got != want {
			t.Errorf("at %d: %s, want %s", unix, got, want)
		}
	}
}

func TestACodeIsGoodForOneStepAround(t *testing.T) {
	alice, bob, now := totp.NewSecret(), totp.NewSecret(), time.Unix(1_800_000_015, 0)
	here := totp.Step(now)
	for away := int64(-3); away <= 3; away++ {
		step, ok := totp.Check(alice, totp.Code(alice, here+away), now)
		if want := away >= -1 && away <= 1; ok != want || ok && step != here+away {
			t.Errorf("%d steps away: step %d, %v; want %v", away, step, ok, want)
		}
	}
	code := totp.Code(alice, here)
	if _, ok := totp.Check(alice, code[:3]+" "+code[3:], now); !ok {
		t.Error("with a space, as apps show it: refused")
	}
	for _, wrong := range []string{"", code[:5], code + "0", "+" + code[1:], "-00001", "００００００", strings.Repeat("1", 5000), totp.Code(bob, here)} {
		if _, ok := totp.Check(alice, wrong, now); ok && wrong != code {
			t.Errorf("%.20q is taken", wrong)
		}
	}
	for _, bad := range []string{"", "AAAA", "not base32!"} {
		if _, ok := totp.Check(secret.New(bad), "", now); ok {
			t.Errorf("with the secret %q the empty code is taken", bad)
		}
	}
}

func TestTheAddressForAnApp(t *testing.T) {
	key := totp.NewSecret()
	u, err := url.Parse(totp.URI("bailey at hub.example.org", "alice", key))
	if err != nil || u.Scheme != "otpauth" || u.Host != "totp" || u.Path != "/bailey at hub.example.org:alice" ||
		u.Query().Get("secret") != key.Reveal() || u.Query().Get("issuer") != "bailey at hub.example.org" {
		t.Errorf("URI = %v, %v", u, err)
	}
	if strings.Contains(u.String(), "+") {
		t.Errorf("%s has a plus, which some apps show as one", u)
	}
	svg, err := totp.Picture(u.String())
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the picture is no XML: %v", err)
		}
	}
	if strings.Contains(svg, "href") || !strings.Contains(svg, "M4 4h7") { // the first finder pattern
		t.Errorf("picture = %.200s", svg)
	}
}

func TestRecoveryCodes(t *testing.T) {
	codes := totp.NewRecoveryCodes()
	seen := map[string]bool{}
	for _, c := range codes {
		hash, ok := totp.RecoveryHash(c.Reveal())
		if !ok || seen[hash] {
			t.Errorf("code %q: ok %v, seen %v", c.Reveal(), ok, seen[hash])
		}
		seen[hash] = true
		for _, typed := range []string{strings.ToUpper(c.Reveal()), strings.ReplaceAll(c.Reveal(), "-", ""), " " + strings.ReplaceAll(c.Reveal(), "-", " ")} {
			if again, ok := totp.RecoveryHash(typed); !ok || again != hash {
				t.Errorf("typed as %q it is another code", typed)
			}
		}
	}
	if len(seen) != totp.RecoveryCodes {
		t.Errorf("%d codes, want %d", len(seen), totp.RecoveryCodes)
	}
	for _, no := range []string{"", "123456", "aaaa-bbbb-cccc", "aaaa-bbbb-cccc-ddd1", strings.Repeat("a", 5000)} {
		if _, ok := totp.RecoveryHash(no); ok {
			t.Errorf("%.30q could be a code", no)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("123456")
	f.Add("aaaa-bbbb-cccc-dddd")
	key, now := totp.NewSecret(), time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, text string) {
		if step, ok := totp.Check(key, text, now); ok && totp.Code(key, step) != strings.ReplaceAll(text, " ", "") {
			t.Errorf("%q is taken for the code of step %d", text, step)
		}
		_, _ = totp.RecoveryHash(text)
	})
}
