package api

import (
	"context"
	"net/http"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/catalogue"
	"github.com/baileyhq/bailey/internal/workspace"
)

// Image is an entry of the catalogue as the API shows it.
type Image struct {
	ID         string     `json:"id"`
	Name       string     `json:"name" doc:"What classes call it"`
	Repository string     `json:"repository"`
	Tag        string     `json:"tag,omitempty" doc:"The tag it was added by; it is never resolved again"`
	Digest     string     `json:"digest" doc:"What was signed, and is pulled"`
	Source     string     `json:"source" enum:"registry,layout,archive"`
	State      string     `json:"state" enum:"candidate,verified,approved,retired"`
	Signer     string     `json:"signer,omitempty" doc:"In words; empty: nobody that the policy trusts"`
	SignedAt   *time.Time `json:"signed_at,omitempty" doc:"When a log or timestamp authority says so"`
	RekorIndex *int64     `json:"rekor_index,omitempty"`
	Rule       string     `json:"rule,omitempty" doc:"The rule of the image policy that decides"`
	Words      string     `json:"words,omitempty" doc:"The decision when it was looked at last"`
	Size       int64      `json:"size_bytes,omitempty"`
	CreatedAt  *time.Time `json:"created_at,omitempty" doc:"When it was built, by its own words"`
	AddedAt    time.Time  `json:"added_at"`
	AddedBy    string     `json:"added_by"`
	DecidedAt  *time.Time `json:"decided_at,omitempty"`
	Message    string     `json:"message,omitempty"`
	Redirect   string     `json:"redirect,omitempty" doc:"What starts in its place"`
	Here       bool       `json:"here" doc:"The engine holds it"`
	Fetched    *int       `json:"fetched_percent,omitempty" doc:"While it is being fetched"`
	Decision   *Decision  `json:"decision,omitempty" doc:"As it is now; of one image only"`
}

// Decision is what the image policy says of an image now.
type Decision struct {
	Class      string          `json:"class" enum:"allowed,denied,unavailable,stale"`
	Reason     string          `json:"reason"`
	Message    string          `json:"message"`
	Hint       string          `json:"hint,omitempty"`
	PolicyHash string          `json:"policy_hash"`
	RootHash   string          `json:"root_hash,omitempty"`
	Checks     []DecisionCheck `json:"checks" nullable:"false"`
}

// DecisionCheck is one thing that was looked at.
type DecisionCheck struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// Receipt says what a run was started from, who vouches for it, and on what it
// runs.
type Receipt struct {
	Workspace  string     `json:"workspace"`
	Owner      string     `json:"owner"`
	Run        string     `json:"run"`
	Class      string     `json:"class"`
	Image      string     `json:"image"`
	Repository string     `json:"repository,omitempty"`
	Digest     string     `json:"digest" doc:"What was signed"`
	Started    string     `json:"started" doc:"The digest that the engine was told to start"`
	Signer     string     `json:"signer,omitempty"`
	RekorIndex *int64     `json:"rekor_index,omitempty"`
	Rule       string     `json:"rule,omitempty"`
	PolicyHash string     `json:"policy_hash,omitempty"`
	RootHash   string     `json:"root_hash,omitempty"`
	Decision   string     `json:"decision" doc:"In words"`
	DecidedAt  *time.Time `json:"decided_at,omitempty"`
	Engine     string     `json:"engine,omitempty"`
	GPUs       []string   `json:"gpus" nullable:"false" doc:"UUIDs"`
	StartedAt  *time.Time `json:"started_at,omitempty"`
	ReadyAt    *time.Time `json:"ready_at,omitempty"`
	EndedAt    *time.Time `json:"ended_at,omitempty"`
}

func (a *API) imageRoutes() {
	register(a, op(http.MethodGet, "/images", "listImages", "The catalogue of images", "images"), a.listImages)
	register(a, withStatus(op(http.MethodPost, "/images", "addImage", "Resolve an image once and add its digest", "images"), http.StatusCreated), a.addImage)
	register(a, op(http.MethodGet, "/images/{ref}", "showImage", "One image, and the decision about it now", "images"), a.showImage)
	register(a, op(http.MethodPost, "/images/{ref}/approve", "approveImage", "Let workspaces start from it", "images"), a.approveImage)
	register(a, op(http.MethodPost, "/images/{ref}/retire", "retireImage", "Take it out of use", "images"), a.retireImage)
	register(a, op(http.MethodPost, "/images/{ref}/countersign", "countersignImage", "Vouch for it with the server's own key", "images"), a.countersignImage)
	register(a, withStatus(op(http.MethodPost, "/images/{ref}/fetch", "fetchImage", "Bring it to this machine ahead of a launch", "images"), http.StatusAccepted), a.fetchImage)
	register(a, op(http.MethodPost, "/images/{ref}/export", "exportImage", "Write it with its evidence into the transfer folder", "images"), a.exportImage)
	register(a, withStatus(op(http.MethodPost, "/imports", "importImage", "Verify and load a file of the transfer folder", "images"), http.StatusCreated), a.importImage)
	register(a, op(http.MethodGet, "/workspaces/{ref}/receipt", "workspaceReceipt", "What its run was started from, and who vouches for it", "workspaces"), a.workspaceReceipt)
}

type imageOutput struct{ Body Image }

type imagesOutput struct {
	Body struct {
		Images []Image `json:"images" nullable:"false"`
	}
}

// ImageRefInput is an image in the path.
type ImageRefInput struct {
	Ref string `path:"ref" maxLength:"128" doc:"Name, id, digest or name@digest of an image"`
}

func (a *API) listImages(ctx context.Context, actor bailey.Actor, _ *none) (*imagesOutput, error) {
	list, err := a.cfg.Images.List(ctx, actor)
	if err != nil {
		return nil, err
	}
	out := &imagesOutput{}
	out.Body.Images = all(list, imageOf)
	return out, nil
}

func (a *API) showImage(ctx context.Context, actor bailey.Actor, in *ImageRefInput) (*imageOutput, error) {
	return answerImage(a.cfg.Images.Show(ctx, actor, in.Ref))
}

type addImageInput struct {
	Body struct {
		Name      string `json:"name" maxLength:"30" doc:"What classes will call it"`
		Reference string `json:"reference" maxLength:"400" doc:"REGISTRY/REPOSITORY:TAG or @sha256:…"`
	}
}

func (a *API) addImage(ctx context.Context, actor bailey.Actor, in *addImageInput) (*imageOutput, error) {
	return answerImage(a.cfg.Images.Add(ctx, actor, in.Body.Name, in.Body.Reference))
}

func (a *API) approveImage(ctx context.Context, actor bailey.Actor, in *ImageRefInput) (*imageOutput, error) {
	return answerImage(a.cfg.Images.Approve(ctx, actor, in.Ref))
}

type retireImageInput struct {
	ImageRefInput
	Body struct {
		Message  string `json:"message,omitempty" maxLength:"300" doc:"For whoever wants to launch it"`
		Redirect string `json:"redirect,omitempty" maxLength:"30" doc:"Name of the image that starts in its place"`
	}
}

func (a *API) retireImage(ctx context.Context, actor bailey.Actor, in *retireImageInput) (*imageOutput, error) {
	return answerImage(a.cfg.Images.Retire(ctx, actor, in.Ref, in.Body.Message, in.Body.Redirect))
}

func (a *API) countersignImage(ctx context.Context, actor bailey.Actor, in *ImageRefInput) (*imageOutput, error) {
	return answerImage(a.cfg.Images.Countersign(ctx, actor, in.Ref))
}

func (a *API) fetchImage(ctx context.Context, actor bailey.Actor, in *ImageRefInput) (*imageOutput, error) {
	return answerImage(a.cfg.Images.Prefetch(ctx, actor, in.Ref))
}

type exportOutput struct {
	Body struct {
		File string `json:"file" doc:"Path on the server"`
	}
}

func (a *API) exportImage(ctx context.Context, actor bailey.Actor, in *ImageRefInput) (*exportOutput, error) {
	file, err := a.cfg.Images.Export(ctx, actor, in.Ref)
	if err != nil {
		return nil, err
	}
	out := &exportOutput{}
	out.Body.File = file
	return out, nil
}

type importInput struct {
	Body struct {
		File       string `json:"file" maxLength:"128" doc:"Name of a file or folder in the server's transfer folder"`
		Name       string `json:"name,omitempty" maxLength:"30" doc:"What classes will call it; default: what the file says"`
		Repository string `json:"repository,omitempty" maxLength:"255" doc:"Where it comes from, for the policy's rules; default: what the file says"`
		Manifest   string `json:"manifest,omitempty" maxLength:"128" doc:"For a docker save file: file with the signed manifest"`
		Bundle     string `json:"bundle,omitempty" maxLength:"128" doc:"File with the signature, if it is not in the file"`
	}
}

func (a *API) importImage(ctx context.Context, actor bailey.Actor, in *importInput) (*imageOutput, error) {
	return answerImage(a.cfg.Images.Import(ctx, actor, catalogue.Import{
		File: in.Body.File, Name: in.Body.Name, Repository: in.Body.Repository, Manifest: in.Body.Manifest, Bundle: in.Body.Bundle,
	}))
}

type receiptOutput struct{ Body Receipt }

func (a *API) workspaceReceipt(ctx context.Context, actor bailey.Actor, in *RefInput) (*receiptOutput, error) {
	w, err := a.cfg.Workspaces.Get(ctx, actor, in.Ref)
	if err != nil {
		return nil, err
	}
	r, err := a.cfg.Workspaces.Receipt(ctx, actor, w.ID)
	if err != nil {
		return nil, err
	}
	return &receiptOutput{Body: receiptOf(r)}, nil
}

func answerImage(e catalogue.Entry, err error) (*imageOutput, error) {
	if err != nil {
		return nil, err
	}
	return &imageOutput{Body: imageOf(e)}, nil
}

func imageOf(e catalogue.Entry) Image {
	out := Image{
		ID: e.ID, Name: e.Name, Repository: e.Repository, Tag: e.Tag, Digest: e.Digest, Source: e.Source, State: string(e.State),
		Signer: e.Signer, SignedAt: optional(e.SignedAt), RekorIndex: index(e.RekorIndex), Rule: e.Policy, Words: e.Words,
		Size: e.Size, CreatedAt: optional(e.CreatedAt), AddedAt: e.AddedAt, AddedBy: e.AddedBy, DecidedAt: optional(e.DecidedAt),
		Message: e.Message, Redirect: e.Redirect, Here: e.Here,
	}
	if e.Fetched >= 0 {
		out.Fetched = &e.Fetched
	}
	if v := e.Verdict; v.Class != "" {
		out.Decision = &Decision{
			Class: string(v.Class), Reason: string(v.Reason), Message: v.Msg, Hint: v.Hint, PolicyHash: v.PolicyHash, RootHash: v.RootHash,
			Checks: make([]DecisionCheck, 0, len(v.Checks)),
		}
		for _, c := range v.Checks {
			out.Decision.Checks = append(out.Decision.Checks, DecisionCheck{Name: c.Name, OK: c.OK, Detail: c.Detail})
		}
	}
	return out
}

// index is a log index, or nil for none.
func index(i int64) *int64 {
	if i < 0 {
		return nil
	}
	return &i
}

func receiptOf(r workspace.Receipt) Receipt {
	return Receipt{
		Workspace: r.Workspace, Owner: r.Owner, Run: r.Run, Class: r.Class,
		Image: r.Image.Image, Repository: r.Image.Repository, Digest: r.Image.Digest, Started: r.Image.Started,
		Signer: r.Image.Signer, RekorIndex: index(r.Image.RekorIndex), Rule: r.Image.Policy,
		PolicyHash: r.Image.PolicyHash, RootHash: r.Image.RootHash, Decision: r.Image.Words, DecidedAt: optional(r.Image.DecidedAt),
		Engine: r.Engine, GPUs: notNil(r.GPUs), StartedAt: optional(r.StartedAt), ReadyAt: optional(r.ReadyAt), EndedAt: optional(r.EndedAt),
	}
}
