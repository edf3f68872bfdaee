package identity_test

import (
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/identity"
)

func TestCleanTakesOutWhatActsOnATerminal(t *testing.T) {
	tests := []struct {
		in   string
		n    int
		want string
	}{
		{"curl/8.5", 64, "curl/8.5"},
		{"a\x1b[31mred\r\nSet-Cookie: x", 64, "a[31mredSet-Cookie: x"},
		{"\u202egnp.exe\u200b", 64, "gnp.exe"},
		{"\x9b1;2H\xff\xfe", 64, "1;2H"},
		{"  laptop  ", 64, "laptop"},
		{"密码密码", 7, "密码"},
		{strings.Repeat("x", 100), 64, strings.Repeat("x", 64)},
		{"", 64, ""},
	}
	for _, tt := range tests {
		if got := identity.Clean(tt.in, tt.n); got != tt.want {
			t.Errorf("Clean(%q, %d) = %q, want %q", tt.in, tt.n, got, tt.want)
		}
	}
}
