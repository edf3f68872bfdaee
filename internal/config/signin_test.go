package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const companyFile = `
sign_in:
  oidc:
    - name: corp
      issuer: https://id.example.org/realms/staff
      client_id: bailey
      client_secret: env:OIDC_SECRET
      allowed_groups: [/research]
      roles: [{from: /admins, role: admin}]
  ldap:
    - name: corp
      servers: [ldaps://dc1.example.org]
      bind_dn: cn=bailey,dc=example,dc=org
      bind_password: file:/etc/bailey/ldap-corp
      user_base: dc=example,dc=org
      everyone: true
      create: false
`

func TestSignIn(t *testing.T) {
	c, err := Load(t.Context(), Source{Path: write(t, companyFile), Env: []string{"OIDC_SECRET=s3cr3t-canary"}})
	if err != nil {
		t.Fatal(err)
	}
	o, l := c.SignIn.OIDC[0], c.SignIn.LDAP[0]
	if o.Title != "corp" || o.UserClaim != "preferred_username" || o.GroupsClaim != "groups" || len(o.Scopes) != 2 || !o.Admission().Create || o.Admission().Everyone {
		t.Errorf("OIDC is %+v", o)
	}
	if l.Kind != "openldap" || l.Admission().Create || !l.Admission().Everyone || l.Admission().DefaultRole != "user" {
		t.Errorf("LDAP is %+v", l)
	}
	if s, err := c.ClientSecretOf(o); err != nil || s.Reveal() != "s3cr3t-canary" {
		t.Errorf("ClientSecretOf: %v", err)
	}
	if _, err := c.BindPasswordOf(l); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("BindPasswordOf without the file: %v", err)
	}
	if time.Duration(c.SignIn.StaleAfter) != 7*24*time.Hour {
		t.Errorf("StaleAfter = %v", c.SignIn.StaleAfter)
	}
	shown, err := c.Show(true)
	if err != nil || strings.Contains(string(shown), "canary") || !strings.Contains(string(shown), "client_secret: env:OIDC_SECRET") {
		t.Errorf("Show: %v\n%s", err, shown)
	}
}

// Each mistake is refused with what to write instead, and a secret that
// somebody wrote into the file is not repeated.
func TestSignInMistakes(t *testing.T) {
	for name, tt := range map[string]struct{ old, fresh, want string }{
		"secret in the file":      {"env:OIDC_SECRET", "s3cr3t-canary", "file:/etc/bailey/oidc-corp"},
		"password in the file":    {"file:/etc/bailey/ldap-corp", "\"s3cr3t-canary\"", "file:/etc/bailey/ldap-corp"},
		"relative file":           {"file:/etc/bailey/ldap-corp", "file:s3cr3t-canary", "reference"},
		"no https":                {"https://id", "http://id", "https:// address"},
		"discovery for issuer":    {"realms/staff", "realms/staff/.well-known/openid-configuration", "issuer: https://id.example.org/realms/staff"},
		"nobody may come in":      {"allowed_groups: [/research]", "allowed_groups: []", "everyone: true"},
		"admin for everybody":     {"create: false", "default_role: admin", "roles:"},
		"no such role":            {"role: admin", "role: root", "user, auditor and admin"},
		"plain LDAP by name":      {"ldaps://dc1", "http://dc1", "StartTLS"},
		"no user base":            {"user_base: dc=example,dc=org", "title: x", "user_base"},
		"base that is no DN":      {"user_base: dc=example,dc=org", "user_base: example", "name=value"},
		"filter without a mark":   {"create: false", "user_filter: (uid=alice)", "{login}"},
		"filter with a wrong one": {"create: false", "user_filter: \"(uid={user})\"", "{login}"},
		"filter without end":      {"create: false", "user_filter: \"(uid={login}\"", "bracket"},
		"groups without a base":   {"everyone: true", "allowed_groups: [a]", "group_base"},
		"bind without password":   {"      bind_password: file:/etc/bailey/ldap-corp\n", "", "bind_password"},
		"no such kind":            {"create: false", "kind: novell", "openldap"},
		"a name that is none":     {"- name: corp\n      issuer", "- name: Corp One\n      issuer", "corp-one"},
		"no client":               {"client_id: bailey", "title: x", "client_id"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(companyFile, tt.old, tt.fresh, 1)
			if text == companyFile {
				t.Fatal("the test changes nothing")
			}
			_, err := Load(t.Context(), Source{Path: write(t, text)})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Load: %v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "canary") && name != "relative file" {
				t.Errorf("the secret is repeated: %v", err)
			}
		})
	}
}

func TestCertificates(t *testing.T) {
	if pool, err := Certificates(""); pool != nil || err != nil {
		t.Errorf("no file: %v, %v", pool, err)
	}
	if _, err := Certificates("/nowhere.pem"); err == nil {
		t.Error("a file that is not there passes")
	}
	path := filepath.Join(t.TempDir(), "x.pem")
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Certificates(path); err == nil || !strings.Contains(err.Error(), "PEM") {
		t.Errorf("nonsense: %v", err)
	}
}
