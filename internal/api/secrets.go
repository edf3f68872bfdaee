package api

import (
	"context"
	"net/http"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/secret"
)

func (a *API) secretRoutes() {
	register(a, op(http.MethodGet, "/secrets", "listSecrets", "The registered secrets, without their values", "admin"), a.listSecrets)
	register(a, op(http.MethodPut, "/secrets/{name}", "setSecret", "Register a secret, or give it another value", "admin"), a.setSecret)
	register(a, withStatus(op(http.MethodDelete, "/secrets/{name}", "removeSecret", "Forget a registered secret", "admin"), http.StatusNoContent), a.removeSecret)
}

// A Secret is a registered secret as the API shows it. The value is not part
// of it, and no operation returns it.
type Secret struct {
	Name      string    `json:"name"`
	Class     string    `json:"class,omitempty" doc:"Empty: of every class"`
	Mode      string    `json:"mode,omitempty" enum:"block,mask,alert,log_only" doc:"What the filter does about it; empty: as its settings say of every other"`
	Bytes     int       `json:"bytes"`
	CreatedAt time.Time `json:"created_at" doc:"When the value was set last"`
}

func secretOf(k bailey.KnownSecret) Secret {
	return Secret{Name: k.Name, Class: k.Class, Mode: k.Mode, Bytes: k.Bytes, CreatedAt: k.CreatedAt}
}

type secretsOutput struct {
	Body struct {
		Secrets []Secret `json:"secrets" nullable:"false"`
	}
}

func (a *API) listSecrets(ctx context.Context, actor bailey.Actor, _ *none) (*secretsOutput, error) {
	list, err := a.cfg.Vault.List(ctx, actor)
	if err != nil {
		return nil, err
	}
	out := &secretsOutput{}
	out.Body.Secrets = all(list, secretOf)
	return out, nil
}

type setSecretInput struct {
	NameInput
	Body struct {
		Value []byte `json:"value" maxLength:"43692" doc:"In base64; 8 bytes to 32 KiB. Workspaces that start from now on have it as the file /run/secrets/NAME"`
		Class string `json:"class,omitempty" maxLength:"64" doc:"Empty: for every class"`
		Mode  string `json:"mode,omitempty" enum:"block,mask,alert,log_only" doc:"What the filter does about it. Empty: what it did before; for a new one, as its settings say of every other"`
	}
}

type secretOutput struct{ Body Secret }

func (a *API) setSecret(ctx context.Context, actor bailey.Actor, in *setSecretInput) (*secretOutput, error) {
	k, err := a.cfg.Vault.Set(ctx, actor, bailey.KnownSecret{Name: in.Name, Class: in.Body.Class, Mode: in.Body.Mode}, secret.New(string(in.Body.Value)))
	if err != nil {
		return nil, err
	}
	return &secretOutput{Body: secretOf(k)}, nil
}

func (a *API) removeSecret(ctx context.Context, actor bailey.Actor, in *NameInput) (*none, error) {
	return nil, a.cfg.Vault.Remove(ctx, actor, in.Name)
}
