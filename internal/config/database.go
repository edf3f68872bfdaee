package config

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"regexp"
	"strings"

	"github.com/baileyhq/bailey/internal/secret"
)

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// checkDatabase checks how the database is named, and that no password is in
// the file. Whether a reference leads anywhere is asked when it is needed
// ([Config.DatabaseURL]): an administrator who validates the file has another
// environment than the server.
func (d *decoder) checkDatabase() {
	text := d.cfg.Database
	const why = "the configuration is shown, copied and kept in version control; a password in it is no secret"
	name, isEnv := strings.CutPrefix(text, "env:")
	file, isFile := strings.CutPrefix(text, "file:")
	switch {
	case text == "":
	case isEnv:
		if !envName.MatchString(name) {
			d.wrong([]string{"database"}, "after env: there is no name of a variable", "letters, digits and _, not beginning with a digit", d.write("database", "env:DATABASE_URL"))
		}
	case isFile:
		if !path.IsAbs(file) || strings.ContainsFunc(file, unprintable) {
			d.wrong([]string{"database"}, "after file: there is no absolute path", "relative paths depend on where the server was started", d.write("database", "file:/etc/bailey/database-url"))
		}
	case strings.HasPrefix(text, "postgres://"), strings.HasPrefix(text, "postgresql://"):
		switch literal, err := hasPassword(text); {
		case err != nil:
			d.wrong([]string{"database"}, "this is not a URL", "a PostgreSQL database is postgres://USER@HOST:PORT/NAME", d.write("database", "postgres://bailey@db.example.org/bailey"))
		case literal:
			d.wrong([]string{"database"}, "the URL has a password in it", why, "the whole URL in a file of mode 0600 and "+d.write("database", "file:/etc/bailey/database-url")+", or in a variable and "+d.write("database", "env:DATABASE_URL"))
		}
	default:
		d.wrong([]string{"database"}, "this names no database", "it is empty (SQLite), env:NAME, file:/path or postgres://USER@HOST/NAME", d.write("database", "env:DATABASE_URL"))
	}
}

// hasPassword reports whether a database URL carries a secret, in the place for
// it or in its query.
func hasPassword(text string) (bool, error) {
	u, err := url.Parse(text)
	if err != nil {
		return false, errors.New("not a URL") // url.Error repeats the text, password and all
	}
	if u.Host == "" && u.Query().Get("host") == "" {
		return false, errors.New("no host")
	}
	if _, set := u.User.Password(); set {
		return true, nil
	}
	for key := range u.Query() {
		if strings.Contains(strings.ToLower(key), "password") {
			return true, nil
		}
	}
	return false, nil
}

// maxSecret bounds a file that holds a secret.
const maxSecret = 16 << 10

// DatabaseURL returns the PostgreSQL URL, its reference followed; an empty
// secret means SQLite in the state directory. It fails when the variable is
// not set or the file is absent, empty, too large or readable by everybody.
func (c *Config) DatabaseURL() (secret.Value, error) {
	if !isReference(c.Database) {
		return secret.New(c.Database), nil
	}
	text, err := c.follow(c.Database)
	if err != nil {
		return secret.Value{}, fmt.Errorf("database: %w", err)
	}
	if !strings.HasPrefix(text, "postgres://") && !strings.HasPrefix(text, "postgresql://") {
		return secret.Value{}, fmt.Errorf("database: what %s leads to is no PostgreSQL URL; write postgres://USER:PASSWORD@HOST/NAME there", c.Database)
	}
	return secret.New(text), nil
}

// isReference reports whether text leads to a secret instead of being one.
func isReference(text string) bool {
	return strings.HasPrefix(text, "env:") || strings.HasPrefix(text, "file:")
}

// follow returns the secret that a reference leads to.
func (c *Config) follow(ref string) (string, error) {
	if name, ok := strings.CutPrefix(ref, "env:"); ok {
		value, set := c.lookup(name)
		if !set || value == "" {
			return "", fmt.Errorf("the environment variable %s is not set; set it for the server, for example in its unit file", name)
		}
		return value, nil
	}
	return readSecret(strings.TrimPrefix(ref, "file:"))
}

// readSecret reads a file that holds one line of secret text.
func readSecret(name string) (text string, err error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("read the secret: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", fmt.Errorf("look at the secret: %w", err)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s is not a file", name)
	case info.Mode().Perm()&0o007 != 0:
		return "", fmt.Errorf("%s can be read or changed by everybody on this machine; run: chmod 600 %s", name, name)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("read the secret: %w", err)
	}
	text = strings.TrimSpace(string(data))
	switch {
	case len(data) > maxSecret:
		return "", fmt.Errorf("%s is larger than %d bytes", name, maxSecret)
	case text == "":
		return "", fmt.Errorf("%s is empty", name)
	}
	return text, nil
}
