from service.web.path_templates import PathTemplates


def test_a_path_is_matched_to_its_template_as_a_whole() -> None:
    templates = PathTemplates("/predict", "/v2/models/{name}/infer")
    assert templates.match("/predict") == "/predict"
    assert templates.match("/v2/models/covid-ct/infer") == "/v2/models/{name}/infer"
    for other in ("/predict/", "/predictable", "/v2/models//infer", "/v2/models/a/b/infer", "/"):
        assert templates.match(other) is None
