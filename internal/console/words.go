package console

import (
	"fmt"
	"html/template"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/docker/go-units"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/identity"
)

// funcs is what the pages can say.
func funcs() template.FuncMap {
	return template.FuncMap{
		"sshreminder": func(k bailey.SSHKey) string { return identity.SSHReminder(k, time.Now()) },
		"bytes": func(n int64) string {
			return units.CustomSize("%.4g %s", float64(n), 1024, []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"})
		},
		"cores": func(milli int64) string {
			if milli == 1000 {
				return "1 core"
			}
			return fmt.Sprintf("%g cores", float64(milli)/1000)
		},
		"gpus": func(n int) string {
			switch n {
			case 0:
				return "no GPU"
			case 1:
				return "1 GPU of your own"
			}
			return fmt.Sprintf("%d GPUs of your own", n)
		},
		"dur":      duration,
		"short":    func(digest string) string { return digest[:min(len(digest), 19)] },
		"age":      age,
		"took":     took,
		"iso":      func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"when":     func(t time.Time) string { return t.UTC().Format("2 Jan 2006 15:04 UTC") },
		"scope":    scopeWords,
		"stage":    stageWords,
		"notice":   noticeWords,
		"sentence": sentence,
		"roles": func() []string {
			return []string{string(bailey.RoleUser), string(bailey.RoleAuditor), string(bailey.RoleAdmin)}
		},
	}
}

// sentence makes a sentence of an error's words.
func sentence(s string) string {
	first, size := utf8.DecodeRuneInString(s)
	if size == 0 {
		return ""
	}
	s = string(unicode.ToUpper(first)) + s[size:]
	if strings.ContainsAny(s[len(s)-1:], ".!?:") {
		return s
	}
	return s + "."
}

func duration(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return d.String()
}

// age says how long ago something was, in days.
func age(at time.Time) string {
	switch days := int(time.Since(at).Hours() / 24); {
	case at.IsZero():
		return "not known"
	case days < 1:
		return "today"
	case days == 1:
		return "1 day"
	default:
		return fmt.Sprintf("%d days", days)
	}
}

func took(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// scopeWords says what a scope allows.
func scopeWords(s bailey.Scope) string {
	switch s {
	case bailey.ScopeAll:
		return "everything that you may do"
	case bailey.ScopeWorkspacesRead:
		return "see your workspaces"
	case bailey.ScopeWorkspacesWrite:
		return "make, start, stop and delete your workspaces"
	case bailey.ScopeWorkspacesOpen:
		return "reach what runs inside your workspaces"
	case bailey.ScopeSSH:
		return "get SSH certificates in your name"
	case bailey.ScopeAccount:
		return "change your account: sessions, tokens, keys"
	case bailey.ScopeGroups:
		return "change the groups that you manage, and stop their members' workspaces"
	case bailey.ScopeAuditRead:
		return "read the audit journal"
	case bailey.ScopeAdminRead:
		return "see everybody's workspaces and accounts"
	case bailey.ScopeAdmin:
		return "administer this server"
	}
	return string(s)
}

// stageWords says a launch stage in words; static/progress.js has the same list.
func stageWords(name string) string {
	switch name {
	case "policy":
		return "Image policy"
	case "image":
		return "Image"
	case "lease":
		return "GPU lease"
	case "create":
		return "Create container"
	case "start":
		return "Start container"
	case "verify":
		return "Verify hardening"
	case "agent":
		return "Agent answers"
	case "jupyter":
		return "Jupyter answers"
	case "ready":
		return "Ready"
	case "selfcheck":
		return "Self check"
	case "memory":
		return "Memory"
	case "failed":
		return "Failed"
	case "stopped":
		return "Stopped"
	}
	return name
}
