package ldap

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"

	"github.com/baileyhq/bailey/internal/external"
)

// verify checks a server's certificate like the standard library would.
func verify(cs tls.ConnectionState, d *Directory, host string) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("the server shows no certificate")
	}
	inter := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		inter.AddCert(c)
	}
	_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: d.cfg.Roots, Intermediates: inter, DNSName: host})
	return err
}

// fill puts values into a filter, each escaped so that it can only be a value.
func fill(filter string, values map[string]string) string {
	var pairs []string
	for mark, value := range values {
		pairs = append(pairs, mark, ldap.EscapeFilter(value))
	}
	return strings.NewReplacer(pairs...).Replace(filter)
}

var markRE = regexp.MustCompile(`\{[^}]*\}`)

// CheckFilter says what is wrong with a filter of the configuration that has at
// least one of the marks in it.
func CheckFilter(filter string, marks ...string) error {
	found := false
	for _, m := range markRE.FindAllString(filter, -1) {
		known := false
		for _, mark := range marks {
			known = known || m == mark
		}
		if !known {
			return fmt.Errorf("%s stands for nothing; there is %s", m, strings.Join(marks, " and "))
		}
		found = true
	}
	if !found {
		return fmt.Errorf("%s is not in it: the same people would be found whoever signs in", strings.Join(marks, " or "))
	}
	if _, err := ldap.CompileFilter(markRE.ReplaceAllString(filter, "x")); err != nil {
		return fmt.Errorf("it is not an LDAP filter: %w", err)
	}
	return nil
}

// The attributes that say that an account is not to be let in.
const (
	attrUAC        = "userAccountControl"   // Active Directory
	attrExpires    = "accountExpires"       // Active Directory
	attrLockedTime = "pwdAccountLockedTime" // OpenLDAP's password policy
	attrNSLock     = "nsAccountLock"        // 389ds, FreeIPA
	attrShadow     = "shadowExpire"         // POSIX, in days
)

func (d *Directory) userAttributes() []string {
	return []string{"uid", d.cfg.NameAttr, d.cfg.IDAttr, attrUAC, attrExpires, attrLockedTime, attrNSLock, attrShadow}
}

// entry reads somebody's entry.
func (d *Directory) entry(e *ldap.Entry) (Entry, error) {
	subject, err := subjectText(d.cfg.IDAttr, e.GetEqualFoldRawAttributeValue(d.cfg.IDAttr))
	if err != nil {
		return Entry{}, &problem{
			step: stepSearch, what: "the entry " + e.DN + " has no usable " + d.cfg.IDAttr + " that the account which searches can read",
			fix: "set id_attribute to one that never means anybody else (entryUUID, objectGUID, nsUniqueId, ipaUniqueID), and let bind_dn read it",
		}
	}
	login := e.GetEqualFoldAttributeValue(d.cfg.NameAttr)
	if !external.CheckLogin(login) {
		login = "" // the name is made of the subject then
	}
	return Entry{
		Person: external.Person{Source: d.Source(), Issuer: d.Source(), Subject: subject, Login: login},
		DN:     e.DN, Locked: d.locked(e),
	}, nil
}

// locked reports whether the directory says that the account is disabled or has
// expired. Locks that end by themselves are not asked about: they come from
// wrong passwords, and strangers could end somebody's sessions with them. While
// they last, the directory refuses the bind.
func (d *Directory) locked(e *ldap.Entry) bool {
	now := d.cfg.Now()
	if n, err := strconv.ParseInt(e.GetEqualFoldAttributeValue(attrUAC), 10, 64); err == nil && n&0x2 != 0 {
		return true
	}
	// 100 ns since 1601; 0 and the largest number mean never.
	if n, err := strconv.ParseInt(e.GetEqualFoldAttributeValue(attrExpires), 10, 64); err == nil && n > 0 && n < 1<<62 {
		const to1970 = 11644473600
		if now.Unix() >= n/1e7-to1970 {
			return true
		}
	}
	if days, err := strconv.ParseInt(e.GetEqualFoldAttributeValue(attrShadow), 10, 64); err == nil && days > 0 && now.Unix() >= days*86400 {
		return true
	}
	// "000001010000Z" is a lock that only an administrator takes away.
	return strings.HasPrefix(e.GetEqualFoldAttributeValue(attrLockedTime), "000001010000") ||
		strings.EqualFold(e.GetEqualFoldAttributeValue(attrNSLock), "true")
}

// subjectText returns an id as text that is always the same.
func subjectText(attr string, raw []byte) (string, error) {
	if strings.EqualFold(attr, "objectGUID") {
		if len(raw) != 16 {
			return "", errors.New("not a GUID")
		}
		return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(raw), binary.LittleEndian.Uint16(raw[4:]), binary.LittleEndian.Uint16(raw[6:]), raw[8:10], raw[10:]), nil
	}
	text := string(raw)
	if text == "" || len(text) > 255 || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "", errors.New("not an id")
	}
	return text, nil
}

// subjectFilter is the inverse of subjectText, as a value in a filter.
func subjectFilter(attr, subject string) (string, error) {
	if !strings.EqualFold(attr, "objectGUID") {
		if _, err := subjectText(attr, []byte(subject)); err != nil {
			return "", err
		}
		return ldap.EscapeFilter(subject), nil
	}
	b, err := hex.DecodeString(strings.ReplaceAll(subject, "-", ""))
	if err != nil || len(b) != 16 {
		return "", errors.New("not a GUID")
	}
	raw := bytes.Clone(b)
	raw[0], raw[1], raw[2], raw[3] = b[3], b[2], b[1], b[0]
	raw[4], raw[5], raw[6], raw[7] = b[5], b[4], b[7], b[6]
	var out strings.Builder
	for _, c := range raw {
		fmt.Fprintf(&out, `\%02x`, c)
	}
	return out.String(), nil
}

// The bounds of a person's groups: a directory with a loop in it, or with more
// groups than anybody meant, costs so much and no more.
const (
	maxDepth  = 10
	maxGroups = 1000
	pageSize  = 250
)

// groups lists the DNs of the groups that somebody is in.
func (d *Directory) groups(c *ldap.Conn, e *ldap.Entry) ([]string, error) {
	if d.cfg.GroupBase == "" {
		return nil, nil
	}
	filter := d.cfg.GroupFilter
	if d.cfg.Nested == NestedChain {
		filter = "(member:1.2.840.113556.1.4.1941:={dn})"
	}
	uid := e.GetEqualFoldAttributeValue("uid")
	seen := map[string]bool{key(e.DN): true}
	var all []string
	for level, next := 0, []string{e.DN}; len(next) > 0 && level < maxDepth; level++ {
		var found []string
		for _, dn := range next {
			values := map[string]string{"{dn}": dn, "{uid}": uid}
			if level > 0 || uid == "" {
				values["{uid}"] = "\x00" // nobody's: groups have no uid
			}
			groups, err := d.groupsOf(c, fill(filter, values), maxGroups-len(all))
			if err != nil {
				return nil, err
			}
			for _, g := range groups {
				if !seen[key(g)] {
					seen[key(g)] = true
					all, found = append(all, g), append(found, g)
				}
			}
			if len(all) >= maxGroups {
				return nil, &problem{step: stepSearch, what: fmt.Sprintf("%s is in %d groups or more", e.DN, maxGroups), fix: "narrow group_base or group_filter to the groups that matter here"}
			}
		}
		if d.cfg.Nested != NestedWalk {
			break
		}
		next = found
	}
	return all, nil
}

// groupsOf searches for groups, page by page.
func (d *Directory) groupsOf(c *ldap.Conn, filter string, limit int) ([]string, error) {
	paging := ldap.NewControlPaging(pageSize)
	var out []string
	for len(out) < limit {
		res, err := c.Search(ldap.NewSearchRequest(d.cfg.GroupBase, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases,
			0, d.seconds(), false, filter, []string{"1.1"}, []ldap.Control{paging}))
		if err != nil {
			return nil, err
		}
		for _, e := range res.Entries {
			out = append(out, e.DN)
		}
		answer, ok := ldap.FindControl(res.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging)
		if !ok || len(answer.Cookie) == 0 {
			return out, nil
		}
		paging.SetCookie(answer.Cookie)
	}
	return out, nil
}

// key is a DN in the form in which equal ones are equal.
func key(dn string) string {
	p, err := ldap.ParseDN(dn)
	if err != nil {
		return dn
	}
	return lower(p.String())
}

// lower folds the case of ASCII alone. Unicode has letters (such as the sign for
// kelvin) that fold to an ASCII one: whoever may make groups would choose them.
func lower(text string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, text)
}

// SameGroup reports whether a group of the directory is the one that the
// configuration means: by its whole DN or, without "=" in it, by the value of
// its first name. Case is no difference, as it is none to directories.
func SameGroup(meant, group string) bool {
	dn, err := ldap.ParseDN(group)
	if err != nil || meant == "" {
		return false
	}
	if !strings.Contains(meant, "=") {
		return lower(commonName(dn)) == lower(meant)
	}
	_, err = ldap.ParseDN(meant)
	return err == nil && key(meant) == key(group)
}

// GroupName returns the name of a group here when no rule gives it one: the
// value of its first name, in lower case.
func GroupName(group string) string {
	dn, err := ldap.ParseDN(group)
	if err != nil {
		return ""
	}
	return lower(commonName(dn))
}

func commonName(dn *ldap.DN) string {
	if len(dn.RDNs) == 0 || len(dn.RDNs[0].Attributes) != 1 {
		return ""
	}
	return dn.RDNs[0].Attributes[0].Value
}
