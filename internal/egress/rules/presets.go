package rules

// The names of the presets.
const (
	PresetNone       = "none"
	PresetML         = "ml"
	PresetMirrorOnly = "mirror-only"
)

// Preset returns one of the sets that need no rules of an administrator's. None
// and mirror-only have no rules: with both, the mirrors that are configured are
// all that is reached without asking; with mirror-only the tools inside are
// pointed to them as well. The set is the caller's to change.
func Preset(name string) (Set, bool) {
	switch name {
	case PresetNone:
		return Set{Name: name, Title: "No site by itself"}, true
	case PresetMirrorOnly:
		return Set{Name: name, Title: "The organisation's own mirrors"}, true
	case PresetML:
		return Set{Name: name, Title: "Package indexes, conda, model hubs and code hosts", Rules: ml()}, true
	}
	return Set{}, false
}

// ml is what people who train models install from and download. The hosts are
// those that the tools named beside them contact, redirects of theirs included.
func ml() []Rule {
	https := []int{443}
	// Debian's and Ubuntu's archives are signed, and read by apt without TLS.
	archive := func(id, host string) Rule {
		return Rule{ID: id, Host: host, Methods: []string{"GET", "HEAD"}, Note: "Debian and Ubuntu packages"}
	}
	return []Rule{
		{ID: "pypi", Host: "pypi.org", Ports: https, Note: "pip, uv: the index"},
		{ID: "pypi-files", Host: "files.pythonhosted.org", Ports: https, Note: "pip, uv: the files"},
		{ID: "pytorch", Host: "download.pytorch.org", Ports: https, Note: "pip: PyTorch for each CUDA version, torch.hub"},
		{ID: "pytorch-files", Host: "download-r2.pytorch.org", Ports: https, Note: "pip: where PyTorch's index leads"},
		{ID: "nvidia", Host: "pypi.nvidia.com", Ports: https, Note: "pip: NVIDIA's index"},

		{ID: "anaconda", Host: "repo.anaconda.com", Ports: https, Note: "conda: the default channels"},
		{ID: "conda", Host: "conda.anaconda.org", Ports: https, Note: "conda: conda-forge, pytorch, nvidia and other channels"},
		{ID: "conda-files", Host: "binstar-cio-packages-prod.s3.amazonaws.com", Ports: https, Note: "conda: where some channels lead"},
		{ID: "prefix", Host: "repo.prefix.dev", Ports: https, Note: "conda, pixi: a mirror of conda-forge"},

		{ID: "huggingface", Host: "huggingface.co", Ports: https, Note: "huggingface_hub, transformers, datasets"},
		{ID: "huggingface-cdn", Host: "*.huggingface.co", Ports: https, Note: "huggingface_hub: large files"},
		{ID: "hf", Host: "*.hf.co", Ports: https, Note: "huggingface_hub: large files, Xet"},
		{ID: "modelscope", Host: "modelscope.cn", Ports: https, Note: "ModelScope"},
		{ID: "modelscope-www", Host: "*.modelscope.cn", Ports: https, Note: "ModelScope: the site and large files"},

		{ID: "github", Host: "github.com", Ports: https, Note: "git, pip install git+https"},
		{ID: "github-api", Host: "api.github.com", Ports: https, Note: "torch.hub, gh"},
		{ID: "github-archives", Host: "codeload.github.com", Ports: https, Note: "archives of repositories"},
		{ID: "github-files", Host: "*.githubusercontent.com", Ports: https, Note: "raw files, releases, LFS"},
		{ID: "gitlab", Host: "gitlab.com", Ports: https, Note: "git"},
		{ID: "gitee", Host: "gitee.com", Ports: https, Note: "git"},

		archive("debian", "deb.debian.org"),
		archive("debian-security", "security.debian.org"),
		archive("ubuntu", "archive.ubuntu.com"),
		archive("ubuntu-security", "security.ubuntu.com"),
	}
}
