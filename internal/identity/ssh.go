package identity

import (
	"context"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/sshkey"
)

// The ways to sign in over SSH, as they stand in [bailey.Actor.Method].
const (
	MethodSSHKey         = "ssh-key"
	MethodSSHCertificate = "ssh-certificate"
)

// An SSHStore keeps who may sign in over SSH. Methods fail like those of
// [Store].
type SSHStore interface { //nolint:interfacebloat // see Store
	// CreateSSHKey stores a key. Conflict when it is anybody's already, or its
	// owner has one of that name.
	CreateSSHKey(ctx context.Context, k bailey.SSHKey) error
	SSHKeys(ctx context.Context, userID string) ([]bailey.SSHKey, error)
	SSHKeyByFingerprint(ctx context.Context, fingerprint string) (bailey.SSHKey, bailey.User, error)
	RenameSSHKey(ctx context.Context, userID, id, name string) error
	TouchSSHKey(ctx context.Context, id string, used time.Time, from string) error
	DeleteSSHKey(ctx context.Context, userID, id string) error
	DeleteSSHKeys(ctx context.Context, userID string) error
	ExpiringSSHKeys(ctx context.Context, before time.Time) ([]bailey.SSHKey, error)
	RemindSSHKey(ctx context.Context, id string, at time.Time) (first bool, err error)

	// SSHAuthority returns the secret of the authority "user" or "host"; fresh
	// becomes it when there is none. With an empty fresh it is NotFound.
	SSHAuthority(ctx context.Context, kind string, fresh secret.Value) (secret.Value, error)
	CreateSSHCertificate(ctx context.Context, c bailey.SSHCertificate) error
	SSHCertificateBySerial(ctx context.Context, serial uint64) (bailey.SSHCertificate, bailey.User, error)
	SSHCertificates(ctx context.Context, userID string) ([]bailey.SSHCertificate, error)
	TouchSSHCertificate(ctx context.Context, id string, used time.Time, from string) error
	// RevokeSSHCertificates revokes the one of the serial, or all that madeBy
	// asked for, or, with neither, all of the user. It returns their ids.
	RevokeSSHCertificates(ctx context.Context, userID string, serial uint64, madeBy string, at time.Time) ([]string, error)

	// CreateSSHPending stores a key under the hash of a code, in place of a
	// former one for the same key and account.
	CreateSSHPending(ctx context.Context, p bailey.SSHPending, codeHash string) error
	SSHPending(ctx context.Context, codeHash string) (bailey.SSHPending, error)
	// FinishSSHPending consumes the code and stores the key, both or neither.
	FinishSSHPending(ctx context.Context, codeHash string, k bailey.SSHKey) error
	DeleteSSHPending(ctx context.Context, codeHash string) error
}

// An sshState is what a Service remembers of the SSH authorities.
type sshState struct {
	mu          sync.Mutex // guards authorities
	authorities map[string]*sshkey.Authority
}

// authority returns the authority of the kind, making it when asked to. A
// NotFound says that there is none.
func (s *Service) authority(ctx context.Context, kind string, create bool) (*sshkey.Authority, error) {
	s.ssh.mu.Lock()
	defer s.ssh.mu.Unlock()
	if a := s.ssh.authorities[kind]; a != nil {
		return a, nil
	}
	var fresh secret.Value
	if create {
		fresh = secret.New(string(sshkey.NewSeed()))
	}
	seed, err := s.cfg.Store.SSHAuthority(ctx, kind, fresh)
	if err != nil {
		return nil, err
	}
	a, err := sshkey.OpenAuthority([]byte(seed.Reveal()))
	if err != nil {
		return nil, err
	}
	if s.ssh.authorities == nil {
		s.ssh.authorities = map[string]*sshkey.Authority{}
	}
	s.ssh.authorities[kind] = a
	return a, nil
}
