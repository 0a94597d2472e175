"""What a picture is measured by: a metric a file.

- `metric`: what every metric is; `registry`: all of them by name;
- `adherence`: does a picture of the drawn world show what its prompt names, by the `judge`;
- `clip`: the raw cosine, Hessel's CLIPScore and Attend-and-Excite's protocol, by open_clip;
- `inception`: the Inception Score of a set of pictures;
- `appearance`: contrast and saturation.
"""
