"""DICOM files of computed tomography to grey frames. pydicom is imported when the first file arrives."""
